"""Recorded device trees: one text file a device, unpacked into a real folder with the kernel's file names.

In a file, `=== path` begins a file of the tree, `\\0` is a NUL byte, and `{0-5}` in a path stands for that many
files, whose number is `{n}` in the text. `{processor 0-5}` at the beginning of a text repeats the text.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "devices"
NAMES = sorted(path.stem for path in FOLDER.glob("*.tree"))


def files_of(name: str) -> dict[str, bytes]:
    """Paths and contents of a recording."""
    text = (FOLDER / f"{name}.tree").read_text(encoding="utf-8")
    found = {}
    for block in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        path, _, content = block.partition("\n")
        for number in _numbers(path):
            expanded = _repeated(content).replace("{n}", number)
            found[re.sub(r"\{\d+-\d+\}", number, path)] = expanded.replace("\\0", "\0").encode()
    return found


def _numbers(path: str) -> list[str]:
    match = re.search(r"\{(\d+)-(\d+)\}", path)
    return [str(i) for i in range(int(match[1]), int(match[2]) + 1)] if match else [""]


def _repeated(content: str) -> str:
    match = re.match(r"\{processor (\d+)-(\d+)\}", content)
    if match is None:
        return content
    numbers = range(int(match[1]), int(match[2]) + 1)
    return "".join(content[match.end() :].replace("{n}", str(i)) for i in numbers)


def unpack(name: str, root: Path, changes: dict[str, bytes | None] | None = None) -> Path:
    """Writes the recording below `root`; `changes` replaces files, or leaves them out with None."""
    for path, content in (files_of(name) | (changes or {})).items():
        if content is not None:
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return root
