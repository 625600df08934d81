"""What an importance matrix is worth: mean KL divergence from BF16, with and without, on held-out tool calls.

    python benchmarks/convert_imatrix.py [--type q4_0 --type q4_k_m ...] [--threads N]

The model is the demo's BF16 file, a tuned SmolLM2-135M: the only real weights that come without a hub. Of the
32 shipped conversations 24 calibrate and 8 are held out. Its rows (576, 1536)
do not divide by 256, so K-types fall back to Q5_0 and Q8_0 for most tensors; the 1536-wide ffn_down keeps its K-type.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from convert.child import run_native
from convert.filetypes import parse_types
from convert.gguf_file import read_gguf
from convert.imatrix import make_imatrix, read_imatrix
from convert.reference import distance, file_logits
from convert.verify import type_counts
from edge.cli.imatrix import calibration_texts
from edge.models.store import resolve

N_CALIBRATION = 24
MAX_PROMPT = 512


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--type", action="append", dest="types")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), args.types or ["q4_0", "q4_k_m", "q3_k_m"], args.threads)


def compare(work: Path, types: list[str], n_threads: int) -> None:
    bf16 = resolve("demo:bf16", print).path
    texts = calibration_texts(None, bf16)
    matrix = work / "imatrix.gguf"
    summary = make_imatrix(
        bf16, texts[:N_CALIBRATION], matrix, dataset="24 conversations", n_threads=n_threads
    )
    print(f"calibrated on {summary.n_tokens} tokens in {summary.n_chunks} pieces")
    values = work / "imatrix.npz"
    np.savez(values, allow_pickle=False, **read_imatrix(matrix).values)
    texts = texts[N_CALIBRATION:]
    probe = run_native("probe", {"model": str(bf16), "texts": texts, "decode": []})
    prompts = [ids[:MAX_PROMPT] for ids in probe["token_ids"]]
    print(f"held out: {len(prompts)} conversations, {sum(map(len, prompts))} positions")
    reference = file_logits(bf16, prompts, n_threads=n_threads)
    print("\n| type | imatrix | mean KL | same top token | MB | tensors |\n|---|---|---|---|---|---|")
    for file_type in parse_types(types):
        for imatrix in (None, str(values)):
            target = work / f"{file_type.name}.gguf"
            request = {"source": str(bf16), "target": str(target), "ftype": file_type.ftype, "fields": {}}
            run_native(
                "quantize", {**request, "n_threads": n_threads, "max_buf_bytes": 2**28, "imatrix": imatrix}
            )
            found = distance(reference, file_logits(target, prompts, n_threads=n_threads))
            counts = ", ".join(f"{count} {kind}" for kind, count in type_counts(read_gguf(target)).items())
            size = target.stat().st_size / 1e6
            used = "yes" if imatrix else "no"
            row = f"| {file_type.name} | {used} | {found.kl_mean:.5f} | {found.same_top:.2%} | {size:.0f} | {counts} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
