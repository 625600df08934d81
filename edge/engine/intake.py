"""Every model file is looked over before it is loaded: what is wrong is an error, what is merely odd a warning.

From the header alone. The result is remembered by the file's identity, so that it is there in a few milliseconds the
next time. Whether llama.cpp survives the file is not asked here: see `trial`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.chat.template import ChatTemplate, ToolFormat
from edge.engine.gguf_checks import check_runnable, check_whole, n_mtp_blocks
from edge.engine.gguf_header import (
    GgufHeader,
    SkippedArray,
    TensorInfo,
    find_tokens,
    read_gguf_header,
    token_type,
)
from edge.engine.identity import memory_of, remember
from edge.errors import ModelError

_VERSION = 1  # of what is remembered
_ALIGNMENT_BYTES = 4096  # more than that after the last tensor is more than padding
_NORMAL_TYPE = 1
# Texts that llama.cpp ends a generation at, whatever eos_token_id says; those that our architectures' models have.
# https://github.com/ggml-org/llama.cpp/blob/0c1e57098/src/llama-vocab.cpp#L2890
_END_TEXTS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "</s>",
    "<EOT>",
)


@dataclass(frozen=True, slots=True)
class Intake:
    """What is known of a model file before it is loaded.

    end_tokens: what ends a generation, by id. template_digest: of the chat template's text, to tell templates apart.
    warnings: what is odd about the file. template_warning: what is odd about its chat template, of no interest when
        another one is used.
    """

    header: GgufHeader
    quantization: str
    tool_format: ToolFormat
    template_digest: str | None
    end_tokens: Mapping[int, str]
    warnings: tuple[str, ...]
    template_warning: str | None

    @property
    def facts(self) -> dict[str, object]:
        """What a user wants to know of a model file."""
        header = self.header
        return {
            "path": str(header.path),
            "architecture": header.architecture,
            "name": header.metadata.get("general.name"),
            "quantization": self.quantization,
            "size_bytes": header.file_bytes,
            "n_ctx_train": header.number("context_length"),
        }


def examine(path: Path) -> Intake:
    """What the file at `path` holds. Raises ModelError, in one sentence, for one that cannot be run.

    0.1 s for 49,152 tokens and 0.6 s for 248,320 the first time, 5 ms then.
    """
    try:
        place = memory_of(path, "intake", ".json")
    except OSError:
        place = None
    if place is not None and (known := _recall(place, path)) is not None:
        return known
    header = read_gguf_header(path)
    if is_embedding_model(header):
        check_whole(header)
    else:
        check_runnable(header)
    intake = _describe(header)
    if place is not None:
        remember(place, json.dumps(_to_json(intake)))
    return intake


def examine_chat(path: Path) -> Intake:
    """The same for a file that text is to be generated with: embedding models are refused."""
    intake = examine(path)
    if is_embedding_model(intake.header):
        raise ModelError(f"{path} is an embedding model, which cannot generate text; give a chat model")
    return intake


def is_embedding_model(header: GgufHeader) -> bool:
    """Whether the file says how a text's vectors become one."""
    return (header.number("pooling_type") or 0) > 0


def _describe(header: GgufHeader) -> Intake:
    template = header.metadata.get("tokenizer.chat_template")
    source = template if isinstance(template, str) and template.strip() else None
    quantization = quantization_name(header)
    eos = header.metadata.get("tokenizer.ggml.eos_token_id")
    found = find_tokens(header, (*_END_TEXTS, "<|im_start|>"), {eos} if isinstance(eos, int) else ())
    is_chatml = {"<|im_start|>", "<|im_end|>"} <= set(found.values())
    ends = {i: text for i, text in found.items() if text in _END_TEXTS or i == eos}
    tool_format = ChatTemplate(source, "the file's own").tool_format if source else "none"
    return Intake(
        header=header,
        quantization=quantization,
        tool_format=tool_format,
        template_digest=hashlib.sha256(source.encode()).hexdigest()[:16] if source else None,
        end_tokens=ends,
        warnings=(*_odd_weights(header, quantization), *_odd_tokens(header, source, ends)),
        template_warning=None
        if is_embedding_model(header)
        else _odd_template(source, tool_format, is_chatml),
    )


def quantization_name(header: GgufHeader) -> str:
    """`general.file_type` by llama.cpp's name (`Q4_K_M`), or the type that most of the weights have."""
    from gguf.constants import LlamaFileType

    try:
        name = str(LlamaFileType(header.metadata.get("general.file_type")).name)
    except ValueError:
        return _commonest_type(header)
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _commonest_type(header: GgufHeader) -> str:
    from gguf.constants import GGMLQuantizationType

    n_weights: Counter[int] = Counter()
    for tensor in header.tensors.values():
        n_weights[tensor.ggml_type] += _n_elements(tensor)
    commonest = n_weights.most_common(1)[0][0]
    return str(GGMLQuantizationType(commonest).name)


def _n_elements(tensor: TensorInfo) -> int:
    n = 1
    for length in tensor.shape:
        n *= length
    return n


def _odd_weights(header: GgufHeader, quantization: str) -> list[str]:
    from gguf.constants import GGMLQuantizationType

    odd = []
    types = {str(GGMLQuantizationType(tensor.ggml_type).name) for tensor in header.tensors.values()}
    base = re.sub(r"_(XXS|XS|XL|S|M|L|NL)$", "", quantization)
    if not types & {quantization, base}:
        odd.append(f"it says that it is {quantization}, and has no such tensor ({', '.join(sorted(types))})")
    if (n_mtp := n_mtp_blocks(header)) > 0:
        odd.append(f"it has {n_mtp} block for multi-token prediction, which takes memory and is not used")
    extra = header.file_bytes - _end_of_tensors(header)
    if extra > _ALIGNMENT_BYTES:
        odd.append(f"{extra} bytes follow the last tensor")
    return odd


def _end_of_tensors(header: GgufHeader) -> int:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    end = header.data_offset
    for tensor in header.tensors.values():
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.ggml_type)]
        end = max(end, header.data_offset + tensor.offset + _n_elements(tensor) // block * size)
    return end


def _odd_tokens(header: GgufHeader, template: str | None, ends: Mapping[int, str]) -> list[str]:
    odd = []
    eos = header.metadata.get("tokenizer.ggml.eos_token_id")
    if isinstance(eos, int) and token_type(header, eos) == _NORMAL_TYPE and ends.get(eos) not in _END_TEXTS:
        odd.append(f"its end-of-text token {eos} is {ends.get(eos, '')[:40]!r}, an ordinary piece of text")
    if template is not None and "<|im_end|>" in template and "<|im_end|>" not in ends.values():
        odd.append(
            "its chat template ends turns with <|im_end|>, which its vocabulary does not have as a token"
        )
    if header.metadata.get("tokenizer.ggml.model") == "gpt2" and not header.metadata.get(
        "tokenizer.ggml.pre"
    ):
        odd.append(
            "it does not say how text is split before tokenizing (tokenizer.ggml.pre); answers will be worse"
        )
    return odd


def _odd_template(template: str | None, tool_format: ToolFormat, is_chatml: bool) -> str | None:
    """is_chatml: the vocabulary has the tokens that the built-in Hermes template is written with."""
    instead = "the built-in Hermes template is used" if is_chatml else "tools will not work with it"
    if template is None:
        return f"it has no chat template; {instead}"
    if tool_format == "none":
        return f"its chat template has no place for tools; {instead}"
    if tool_format == "xml":
        return f"its chat template teaches calls in XML, and calls are written in JSON here; {instead}"
    return None


def _to_json(intake: Intake) -> dict[str, object]:
    header = intake.header
    metadata = {
        key: {"skipped": asdict(value)} if isinstance(value, SkippedArray) else {"value": value}
        for key, value in header.metadata.items()
    }
    return {
        "memory": _VERSION,
        "header": [header.version, metadata, header.data_offset, header.file_bytes],
        "tensors": [[t.name, t.shape, t.ggml_type, t.offset] for t in header.tensors.values()],
        "intake": [
            intake.quantization, intake.tool_format, intake.template_digest,
            list(intake.end_tokens.items()), intake.warnings, intake.template_warning,
        ],
    }  # fmt: skip


def _recall(place: Path, path: Path) -> Intake | None:
    """What was remembered; None if nothing was, or nothing that can be read."""
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["memory"] != _VERSION:
            return None
        version, metadata, data_offset, file_bytes = known["header"]
        tensors = {t[0]: TensorInfo(t[0], tuple(t[1]), t[2], t[3]) for t in known["tensors"]}
        values = {
            k: SkippedArray(**v["skipped"]) if "skipped" in v else v["value"] for k, v in metadata.items()
        }
        quantization, tool_format, digest, ends, warnings, template_warning = known["intake"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    header = GgufHeader(path, version, values, tensors, data_offset, file_bytes)
    return Intake(
        header,
        quantization,
        tool_format,
        digest,
        {int(i): t for i, t in ends},
        tuple(warnings),
        template_warning,
    )
