"""KL divergence, same-top share and perplexity against llama.cpp's own perplexity tool, same files, same text.

    python -m benchmarks.check_perplexity LLAMA_PERPLEXITY FOLDER [--chunks 8] [--threads 2]

LLAMA_PERPLEXITY: the program out of llama.cpp's source tree, which is in the llama-cpp-python source package:
    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36
    cmake -S vendor/llama.cpp -B build -DLLAMA_OPENSSL=OFF && cmake --build build --target llama-perplexity
FOLDER: where `benchmarks.check_models` wrote the siblings (made if they are not there).
The text is this repository's documentation. The tool scores the second half of each chunk of 512 tokens; so is done
here. Exit code 1 if a figure is more than 1 % off.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.check_models import make_siblings
from edge.accuracy.distance import DistanceSummary, compare_texts, summarize_positions
from edge.engine.context import ContextOptions
from edge.engine.scoring import Scorer

N_CTX, FIRST = 512, 256
MAX_OFF = 0.01
PATTERNS = {
    "ppl_candidate": r"Mean PPL\(Q\)\s*:\s*([\d.]+)",
    "ppl_reference": r"Mean PPL\(base\)\s*:\s*([\d.]+)",
    "ppl_ratio": r"Mean PPL\(Q\)/PPL\(base\)\s*:\s*([\d.]+)",
    "kld_mean": r"Mean\s+KLD:\s*([\d.]+)",
    "kld_median": r"Median\s+KLD:\s*([\d.]+)",
    "kld_p99": r"99\.0%\s+KLD:\s*([\d.]+)",
    "kld_max": r"Maximum KLD:\s*([\d.]+)",
    "same_top": r"Same top p:\s*([\d.]+)",
}
COMPARED = ("kld_mean", "same_top", "ppl_reference", "ppl_candidate", "ppl_ratio")


def theirs(
    program: str, reference: Path, candidate: Path, text: Path, args: argparse.Namespace
) -> dict[str, float]:
    """The tool's figures."""
    with tempfile.TemporaryDirectory() as folder:
        base = f"{folder}/base.kld"
        common = ["-f", str(text), "-c", str(N_CTX), "-b", str(N_CTX), "--chunks", str(args.chunks)]
        common += ["-t", str(args.threads), "--kl-divergence-base", base]
        # As in the check: flash attention, and weights in the layout that they have in the file or a repacked one.
        run([program, "-m", str(reference), *common, "-fa", "on"])
        printed = run([program, "-m", str(candidate), *common, "-fa", "on", "--kl-divergence"])
    found = {name: float(re.search(pattern, printed)[1]) for name, pattern in PATTERNS.items()}  # type: ignore[index]
    return found | {"same_top": found["same_top"] / 100}


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout + done.stderr


def ours(reference: Path, candidate: Path, text: str, args: argparse.Namespace) -> DistanceSummary:
    """The same figures by this program."""
    context = ContextOptions(n_ctx=N_CTX, n_threads=args.threads)
    texts = []
    with Scorer(reference, context=context) as one, Scorer(candidate, context=context) as other:
        tokens = one.model.vocab.tokenize(text, add_bos=True)
        for start in range(0, args.chunks * N_CTX, N_CTX):
            chunk = tokens[start : start + N_CTX]
            fed, targets = chunk[:-1], chunk[FIRST + 1 :]
            rows = one.logits(fed, FIRST), other.logits(fed, FIRST)
            texts.append(compare_texts(*rows, targets, [False] * len(targets)))
    summary = summarize_positions(texts)
    assert summary is not None
    return summary


def documentation() -> str:
    root = Path(__file__).parents[1]
    return "\n".join(path.read_text() for path in [root / "README.md", *sorted(root.glob("docs/*.md"))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    reference, *candidates = make_siblings(args.folder, args.threads)
    text = documentation()
    file = args.folder / "text.txt"
    file.write_text(text)
    worst = 0.0
    for candidate in candidates:
        tool, here = (
            theirs(args.program, reference, candidate, file, args),
            ours(reference, candidate, text, args),
        )
        print(
            f"\n{candidate.name}, {here.n_tokens} tokens\n\n| figure | tool | here | off |\n|---|---|---|---|"
        )
        for name in PATTERNS:
            mine = float(getattr(here, name))
            off = abs(mine / tool[name] - 1) if tool[name] else abs(mine)
            worst = max(worst, off) if name in COMPARED else worst
            print(f"| {name} | {tool[name]:.6f} | {mine:.6f} | {off:.3%} |")
    print(f"\nlargest deviation of {', '.join(COMPARED)}: {worst:.3%}; allowed {MAX_OFF:.0%}")
    return int(worst > MAX_OFF)


if __name__ == "__main__":
    sys.exit(main())
