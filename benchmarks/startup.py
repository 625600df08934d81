"""How long does `smoltools-edge --help` take, as a multiple of `python -c pass`? And `profile`, in milliseconds?

    python -m benchmarks.startup [--repeat 30]

The three are run in turn; medians are compared. What is imported by the command that follows is not part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=30)
    args = parser.parse_args()
    program = str(Path(sys.executable).with_name("smoltools-edge"))
    empty, helped, profiled = [], [], []
    for _ in range(args.repeat):
        empty.append(seconds([sys.executable, "-c", "pass"]))
        helped.append(seconds([program, "--help"]))
        profiled.append(seconds([program, "profile"]))
    result = {
        "python_ms": round(1000 * statistics.median(empty), 1),
        "help_ms": round(1000 * statistics.median(helped), 1),
        "profile_ms": round(1000 * statistics.median(profiled), 1),
        "ratio": round(statistics.median(helped) / statistics.median(empty), 2),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
