"""Which of a repository's GGUF files is meant: by the quantization at the end of the name, or by the name itself.

Names only; nothing is opened or fetched here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.errors import CatalogueError

DEFAULT_QUANTIZATIONS = ("Q4_K_M", "Q8_0", "BF16", "F16")

_QUANTIZATION = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q|TQ)\d(?:_[A-Z0-9]+)*|BF16|F16|FP16|F32|MXFP4(?:_MOE)?)$", re.IGNORECASE
)
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
# Beside the model: image encoders and importance matrices are GGUF too.
_NOT_A_MODEL = re.compile(r"(^|/)(mmproj|[^/]*imatrix)[^/]*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """One GGUF file of a repository, its name in the repository and its size if that is known.

    n_parts: above 1 this is the first part of a model that was split into so many files.
    """

    path: str
    size_bytes: int | None = None
    n_parts: int = 1

    @property
    def quantization(self) -> str | None:
        """`Q4_K_M` of `x/name-q4_k_m.gguf`, also of `Q4_K_M/name.gguf`; None when the name says nothing."""
        return quantization_of(self.path)

    def __str__(self) -> str:
        size = "" if self.size_bytes is None else f" ({format_size(self.size_bytes)})"
        return f"{self.path}{size}"


def format_size(n_bytes: int) -> str:
    """Bytes for people: `2.71 GB`, `98.4 MB`, `812 bytes`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.{2 if unit == 1e9 else 1}f} {name}"
    return f"{n_bytes} byte{'' if n_bytes == 1 else 's'}"


def quantization_of(path: str) -> str | None:
    """The quantization that a file's name, or else its folder, ends with; upper case."""
    stem = _stem(path)
    folder = path.rpartition("/")[0]
    match = _QUANTIZATION.search(stem) or _QUANTIZATION.search(folder)
    return match[1].upper() if match else None


def _stem(path: str) -> str:
    return _PART.sub("", path[: -len(".gguf")])


def model_files(files: Iterable[tuple[str, int | None]]) -> list[GgufFile]:
    """The models among (path, size) pairs, by path; of a split model the first part, with the size of all."""
    sizes = {path: size for path, size in files if path.lower().endswith(".gguf")}
    found = []
    for path in sorted(sizes):
        if _NOT_A_MODEL.search(path):
            continue
        part = _PART.search(path[: -len(".gguf")])
        if part is None or int(part[2]) <= 1:
            found.append(GgufFile(path, sizes[path]))
        elif int(part[1]) == 1:
            siblings = [other for other in sizes if _stem(other) == _stem(path)]
            total = sum(sizes[other] or 0 for other in siblings)
            found.append(GgufFile(path, total or None, int(part[2])))
    return found


def choose_file(
    files: Sequence[GgufFile], wanted: str | None, preferred: Sequence[str] = (), *, where: str
) -> GgufFile | None:
    """The file that `wanted` names (a quantization or a file's name), or the first preferred one; None: no such.

    where: the repository, for messages. Raises CatalogueError when several files fit, listing them, and for a
    split model.
    """
    chosen = _choose(files, wanted, preferred, where)
    if chosen is not None and chosen.n_parts > 1:
        others = [f for f in files if f.n_parts == 1]
        raise CatalogueError(
            f"{chosen.path} of {where} is split into {chosen.n_parts} files, which cannot be loaded; "
            + (
                f"take another: {list_files(others)}"
                if others
                else "merge them with llama-gguf-split --merge"
            )
        )
    return chosen


def _choose(
    files: Sequence[GgufFile], wanted: str | None, preferred: Sequence[str], where: str
) -> GgufFile | None:
    if wanted is not None and wanted.lower().endswith(".gguf"):
        named = [f for f in files if f.path.lower() == wanted.lower()]
        named = named or [f for f in files if f.path.lower().endswith("/" + wanted.lower())]
        return _only(named, wanted, where)
    for quantization in [wanted] if wanted is not None else [*preferred, *DEFAULT_QUANTIZATIONS]:
        fitting = [f for f in files if f.quantization == quantization.upper()]
        fitting = fitting or [f for f in files if _ends_with(f, quantization)]
        if fitting:
            return _only(fitting, quantization, where)
    return files[0] if len(files) == 1 and wanted is None else None


def _ends_with(file: GgufFile, quantization: str) -> bool:
    """For quantizations that this module does not know, and for a part of one (`Q4_K_XL` of `UD-Q4_K_XL`)."""
    return _stem(file.path).lower().endswith(("-" + quantization.lower(), "." + quantization.lower()))


def _only(fitting: list[GgufFile], wanted: str, where: str) -> GgufFile | None:
    if len(fitting) > 1:
        raise CatalogueError(
            f"{where} has {len(fitting)} files for {wanted}: {list_files(fitting)}; name one: {where}:FILE.gguf"
        )
    return fitting[0] if fitting else None


def list_files(files: Sequence[GgufFile]) -> str:
    """`BF16 (8.42 GB), Q8_0 (4.48 GB)`: quantizations where they tell files apart, else names; the largest first."""
    if not files:
        return "no .gguf file"
    quantizations = [f.quantization for f in files]
    telling = len(set(quantizations)) == len(files) and None not in quantizations
    ordered = sorted(files, key=lambda f: -(f.size_bytes or 0))
    shown = [str(GgufFile(f.quantization or "", f.size_bytes)) if telling else str(f) for f in ordered[:20]]
    return ", ".join(shown) + (f" and {len(files) - 20} more" if len(files) > 20 else "")
