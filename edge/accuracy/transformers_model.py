"""A checkpoint in float32 under transformers as the reference: what the weights were before they were converted.

Needs torch and transformers, which nothing else here does. Answers greedily and without a grammar; its tokenizer is
the checkpoint's own, so that prompts which the GGUF file's vocabulary cuts differently are found.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.accuracy.answers import Answer, read_text
from edge.accuracy.cases import EvalCase
from edge.accuracy.digests import tokens_digest
from edge.accuracy.errors import CheckError
from edge.chat.template import ChatTemplate, render_prompt

if TYPE_CHECKING:
    from edge.accuracy.variants import AnswerOptions, VariantSpec

_ROWS_AT_ONCE = 32


class TransformersModel:
    """Weights in float32. logits() gives rows like `edge.engine.scoring.Scorer`."""

    def __init__(self, folder: str, n_vocab: int | None = None) -> None:
        """n_vocab: of the GGUF file that it is compared with. Raises CheckError."""
        self.torch, transformers = _required("torch"), _required("transformers")
        try:
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=self.torch.float32, attn_implementation="eager"
            ).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as exc:
            first = str(exc).strip().split("\n")[0]
            raise CheckError(f"transformers cannot load {folder}: {first}") from exc
        found = int(self.model.get_output_embeddings().weight.shape[0])
        if n_vocab is not None and found != n_vocab:
            raise CheckError(f"{folder} has {found} output tokens, the GGUF file {n_vocab}")

    def logits(self, tokens: Sequence[int], first: int = 0) -> Iterator[NDArray[np.float32]]:
        """The logits after each of `tokens[first:]`, some rows at a time."""
        torch, cache = self.torch, None
        starts = [*range(first, len(tokens), _ROWS_AT_ONCE)]
        spans = ([(0, first)] if first else []) + [(s, min(s + _ROWS_AT_ONCE, len(tokens))) for s in starts]
        for start, end in spans:
            with torch.no_grad():
                ids = torch.tensor([list(tokens[start:end])])
                kept = 1 if start < first else 0  # 0 keeps all
                out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=kept)
            cache = out.past_key_values
            if start >= first:
                yield out.logits[0].float().numpy()


def open_transformers(spec: VariantSpec, options: AnswerOptions) -> TransformersAnswerer:
    """The checkpoint, loaded, with its tokenizer. Raises CheckError."""
    transformers = _required("transformers")
    if options.template is None:
        raise CheckError("a transformers checkpoint is compared with GGUF files; none was given")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec.location)
    except (OSError, ValueError, KeyError) as exc:
        first = str(exc).strip().split("\n")[0]
        raise CheckError(f"transformers cannot read the tokenizer of {spec.location}: {first}") from exc
    return TransformersAnswerer(TransformersModel(spec.location), tokenizer, options, options.template)


class TransformersAnswerer:
    """Greedy answers of a checkpoint."""

    def __init__(
        self,
        model: TransformersModel,
        tokenizer: Any,  # noqa: ANN401 - transformers is not typed here
        options: AnswerOptions,
        template: ChatTemplate,
    ) -> None:
        self._model, self._tokenizer, self._options, self._template = model, tokenizer, options, template

    def answer(self, case: EvalCase, *, grammar: bool) -> Answer:
        """The whole answer. There is no grammar; what the weights write is read as it is."""
        assert not grammar
        rendered = render_prompt(
            self._template, case.messages, case.tools, enable_thinking=self._options.think
        )
        text = unicodedata.normalize("NFC", rendered.text)
        adds_bos = bool(getattr(self._tokenizer, "add_bos_token", False))
        prompt = self._tokenizer.encode(text, add_special_tokens=adds_bos)
        n_ctx = self._options.n_ctx
        if n_ctx is not None and len(prompt) >= n_ctx:
            return Answer(error=f"the prompt has {len(prompt)} tokens, n_ctx is {n_ctx}")
        started = time.perf_counter()
        written = self._generate(prompt)
        wall_s = time.perf_counter() - started
        content, reasoning, calls = read_text(
            self._tokenizer.decode(written), case.compiled(), opens_thinking=rendered.opens_thinking
        )
        return Answer(
            calls=tuple(calls),
            content=content,
            reasoning=reasoning,
            finish_reason="length" if len(written) >= self._options.max_tokens else "stop",
            prompt_tokens=len(prompt),
            completion_tokens=len(written),
            decode_s=wall_s,
            wall_s=wall_s,
            prompt_digest=tokens_digest(prompt),
        )

    def _generate(self, prompt: Sequence[int]) -> list[int]:
        """Token ids up to the end of the turn, which is left out."""
        torch, model, cache = self._model.torch, self._model.model, None
        ends = self._ends()
        ids = list(prompt)
        written: list[int] = []
        while len(written) < self._options.max_tokens:
            with torch.no_grad():
                out = model(
                    input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1
                )
            cache, token = out.past_key_values, int(out.logits[0, -1].argmax())
            if token in ends:
                break
            written.append(token)
            ids = [token]
        return written

    def _ends(self) -> set[int]:
        named = [self._tokenizer.eos_token_id, self._model.model.config.eos_token_id]
        generation = getattr(self._model.model, "generation_config", None)
        named.append(generation.eos_token_id if generation is not None else None)
        ids: set[int] = set()
        for value in named:
            ids.update(value if isinstance(value, list) else [] if value is None else [value])
        for text in ("<|im_end|>", "<|endoftext|>"):
            found = self._tokenizer.encode(text, add_special_tokens=False)
            ids.update(found if len(found) == 1 else [])
        return ids


def _required(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as exc:
        raise CheckError(
            f"{package} is not installed; a transformers: reference needs torch and transformers"
        ) from exc
