"""The strongest check: logits of our files against transformers in float32. Needs torch, transformers, peft for LoRA.

The float32 file must agree closely, since both compute the same sums in another order; the others are measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from convert.child import NativeFailure, run_native
from convert.errors import ConvertError, VerifyError
from convert.tokenizer import load_tokenizer

Logits = list[NDArray[np.float32]]

_MAX_PROMPT_TOKENS = 256
# Measured on tiny models: below 1e-8. A forgotten transform gives 1e-3 and more.
_MAX_KL = 1e-5
_MIN_SAME_TOP = 0.99


@dataclass(frozen=True, slots=True)
class Distance:
    """Over all positions: KL(reference || file) in nats, largest logit difference, share of equal top tokens."""

    kl_mean: float
    max_abs: float
    same_top: float

    def __str__(self) -> str:
        return f"mean KL {self.kl_mean:.2e}, max difference {self.max_abs:.2e}, same top token {self.same_top:.2%}"

    @property
    def is_float32_noise(self) -> bool:
        return self.kl_mean < _MAX_KL and self.same_top >= _MIN_SAME_TOP


def probe_prompts(tokenizer_path: Path, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of the texts, cut so that float32 logits of a large vocabulary stay small; empty ones left out."""
    tokenizer = load_tokenizer(tokenizer_path)
    prompts = [tokenizer.encode(text).ids[:_MAX_PROMPT_TOKENS] for text in texts]
    return [prompt for prompt in prompts if prompt]


def transformers_logits(folder: Path, adapters: Sequence[Path], prompts: Sequence[Sequence[int]]) -> Logits:
    """Logits of all positions from transformers in float32, adapters applied but not merged.

    Raises ConvertError naming the package that is missing.
    """
    torch, transformers = _required("torch"), _required("transformers")
    config = transformers.AutoConfig.from_pretrained(folder)
    has_vision = hasattr(config, "vision_config")
    loader = transformers.AutoModelForImageTextToText if has_vision else transformers.AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    for i, adapter in enumerate(adapters):
        peft = _required("peft")
        model = peft.PeftModel.from_pretrained(model, adapter)
        if i + 1 < len(adapters):
            model = model.merge_and_unload()
    model.eval()
    with torch.no_grad():
        return [model(input_ids=torch.tensor([list(prompt)])).logits[0].float().numpy() for prompt in prompts]


def require_packages(*, with_adapters: bool) -> None:
    """Raise ConvertError, before any work, if a package of the comparison is missing."""
    for package in ("torch", "transformers", *(("peft",) if with_adapters else ())):
        _required(package)


def _required(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        raise ConvertError(f"--verify full needs {package}, which is not installed") from error


def file_logits(model: Path, prompts: Sequence[Sequence[int]], *, n_threads: int) -> Logits:
    """Logits of all positions from llama.cpp with a float32 cache. Raises VerifyError if it does not run."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "logits.npz"
        request = {
            "model": str(model),
            "prompts": [list(prompt) for prompt in prompts],
            "target": str(target),
            "n_threads": n_threads,
            "exact": True,
        }
        try:
            run_native("logits", request)
        except NativeFailure as error:
            raise VerifyError(model.name, "logits", str(error)) from error
        with np.load(target) as stored:
            return [stored[str(i)] for i in range(len(prompts))]


def distance(reference: Logits, found: Logits) -> Distance:
    """How far two models' logits on the same prompts lie apart."""
    wanted = np.concatenate(reference).astype(np.float64)
    ours = np.concatenate(found).astype(np.float64)
    p, q = _log_softmax(wanted), _log_softmax(ours)
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    return Distance(
        kl_mean=float(kl.mean()),
        max_abs=float(np.abs(wanted - ours).max()),
        same_top=float((wanted.argmax(axis=-1) == ours.argmax(axis=-1)).mean()),
    )


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised
