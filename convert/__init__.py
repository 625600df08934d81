"""Checkpoint and LoRA to GGUF: read, merge, write, quantize, and prove each file right.

result = convert(ConvertOptions(checkpoint="path/or/user/repo", out=Path("out")), on_progress)
"""

from __future__ import annotations

from convert.errors import ConvertError
from convert.job import ConvertOptions
from convert.pipeline import ConvertResult, Progress, convert

__all__ = ["ConvertError", "ConvertOptions", "ConvertResult", "Progress", "convert"]
