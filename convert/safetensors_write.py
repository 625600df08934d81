"""Writing a safetensors file with one tensor in memory at a time, in F32.

The safetensors package wants all arrays at once, which is the whole model in float32.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], values: Callable[[str], NDArray[np.float32]]
) -> None:
    """Write the file: values(name) is asked for each name of `shapes`, in their order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants data at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            array = np.ascontiguousarray(values(name), dtype="<f4")
            assert array.shape == shape, name
            file.write(array.data)
