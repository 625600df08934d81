"""The errors that `convert` raises on purpose.

    ConvertError
    ├── CheckpointError    not a checkpoint: missing file, missing shard, damaged header, absent tensor
    ├── UnsupportedModel   a checkpoint that we read but cannot express in GGUF (architecture, rope, bias, ...)
    ├── TokenizerError     a tokenizer that is not byte-level BPE, or that nobody knows
    ├── AdapterError       a LoRA adapter that cannot be merged into this checkpoint
    ├── WeightError        a weight that is NaN or infinite, or does not fit the requested type
    ├── OutputError        the output exists, cannot be written, or does not fit the disk
    ├── QuantizeError      an unknown type, or llama.cpp refused to quantize
    ├── ImatrixError       an importance matrix that cannot be read, made or used
    └── VerifyError        the written file is not what it should be

The message is one line: what was found, what is allowed. Facts are attributes.
"""

from __future__ import annotations


class ConvertError(Exception):
    """Base of every error that a caller may show to a user as it is."""


class CheckpointError(ConvertError):
    """The folder is not a complete safetensors checkpoint."""


class UnsupportedModel(ConvertError):
    """A model that this converter cannot express in GGUF without changing its output."""


class TokenizerError(ConvertError):
    """The tokenizer is not byte-level BPE, does not fit the model, or is unknown."""


class AdapterError(ConvertError):
    """The adapter is not plain LoRA, or belongs to another base model."""


class WeightError(ConvertError):
    """A weight cannot be stored: NaN, infinite, or outside the range of the requested type."""

    def __init__(self, tensor: str, found: str) -> None:
        super().__init__(f"tensor {tensor} holds {found}")
        self.tensor, self.found = tensor, found


class OutputError(ConvertError):
    """The output exists already, cannot be written, or does not fit the disk."""


class QuantizeError(ConvertError):
    """The type is unknown, or llama.cpp refused to quantize."""


class ImatrixError(ConvertError):
    """The importance matrix cannot be read or made, or is of another model."""


class VerifyError(ConvertError):
    """A written file failed one of the checks; nothing was put in place."""

    def __init__(self, file: str, check: str, detail: str) -> None:
        super().__init__(f"{file}: check {check!r} failed: {detail}")
        self.file, self.check, self.detail = file, check, detail
