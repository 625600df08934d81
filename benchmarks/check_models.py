"""Siblings of the demo model to compare: BF16, Q8_0, and Q4_K_M with and without an importance matrix.

    python -m benchmarks.check_models FOLDER [--threads N]

The demo's BF16 file is the reference: the only real weights that come without a hub. All
shipped calibration conversations go into the importance matrix; none of them is among the
evaluation cases.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

from convert.child import run_native
from convert.filetypes import parse_types
from convert.imatrix import make_imatrix, read_imatrix
from edge.cli.imatrix import calibration_texts
from edge.models.store import resolve

NAME = "smollm2-135m"


def make_siblings(folder: Path, n_threads: int) -> list[Path]:
    """The files, made where they are missing; the reference first."""
    folder.mkdir(parents=True, exist_ok=True)
    bf16 = folder / f"{NAME}-bf16.gguf"
    if not bf16.exists():
        shutil.copyfile(resolve("demo:bf16", print).path, bf16)
    made = [bf16]
    with tempfile.TemporaryDirectory() as work:
        values = None
        for kind, suffix in (("q8_0", ""), ("q4_k_m", ""), ("q4_k_m", "-imatrix")):
            target = folder / f"{NAME}-{kind}{suffix}.gguf"
            made.append(target)
            if target.exists():
                continue
            if suffix and values is None:
                values = importance(bf16, Path(work), n_threads)
            (file_type,) = parse_types([kind])
            request = {"source": str(bf16), "target": str(target), "ftype": file_type.ftype, "fields": {}}
            options = {"n_threads": n_threads, "max_buf_bytes": 2**28}
            run_native("quantize", {**request, **options, "imatrix": str(values) if suffix else None})
    return made


def importance(bf16: Path, work: Path, n_threads: int) -> Path:
    """The importance matrix of the shipped conversations, as the quantizer's child process reads it."""
    matrix, values = work / "imatrix.gguf", work / "imatrix.npz"
    make_imatrix(bf16, calibration_texts(None, bf16), matrix, dataset="shipped", n_threads=n_threads)
    np.savez(values, allow_pickle=False, **read_imatrix(matrix).values)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    for path in make_siblings(args.folder, args.threads):
        print(path, f"{path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
