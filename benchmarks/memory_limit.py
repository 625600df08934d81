"""Do the model cards' floors hold: Q4_K_M under a 4 GiB memory limit, Q8_0 under 6 GiB? The limit is a real cgroup.

    sudo python -m benchmarks.memory_limit [--folder DIR] [--only Q4_K_M]

Each run is the program itself (`run` with a tool, --tool-choice required) on a random model of the cards' size
(Qwen3.5-4B with an output matrix of its own), in a memory cgroup of its own without swap, with the file's pages out of
the page cache first, so that they are charged to it. Context and all else are what the plan picks under the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.memory_model import MIB, model_path

GIB = 1 << 30
FLOORS = {"Q4_K_M": 4 * GIB, "Q8_0": 6 * GIB}
V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
TOOL = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "unit": {"enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the random models are kept for another run")
    parser.add_argument("--only", choices=list(FLOORS))
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for quantization, limit_bytes in FLOORS.items():
            if args.only in (None, quantization):
                path = model_path(args.folder or Path(scratch), f"qwen35 {quantization} untied", quick=False)
                result = run_limited(path, limit_bytes, args.threads)
                print(json.dumps({"quantization": quantization} | result, indent=1), flush=True)
                failed += result["exit_code"] != 0
    return min(failed, 1)


def run_limited(path: Path, limit_bytes: int, threads: int | None) -> dict[str, object]:
    """One answer under the limit: what was planned, what came out, and what the cgroup counted."""
    forget_pages(path)
    group = make_group(limit_bytes)
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as tools:
            json.dump([TOOL], tools)
            tools.flush()
            command = [sys.executable, "-m", "edge.cli", "run", "What is the weather in Paris?", "--json"]
            command += ["--model", str(path), "--tools", tools.name, "--tool-choice", "required"]
            command += [
                "--max-tokens",
                "80",
                "--seed",
                "1",
                *(["--threads", str(threads)] if threads else []),
            ]
            began = time.monotonic()
            enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
            done = subprocess.run(
                ["sh", "-c", enter, "sh", *command], capture_output=True, text=True, check=False
            )
            seconds = time.monotonic() - began
        return {
            "limit_mib": limit_bytes // MIB,
            "file_mib": path.stat().st_size // MIB,
            "exit_code": done.returncode,
            **outcome(done),
            **counted(group),
            "seconds": round(seconds, 1),
        }
    finally:
        group.rmdir()


def forget_pages(path: Path) -> None:
    """Takes the file out of the page cache; otherwise its pages stay charged to whoever read it first."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_group(limit_bytes: int) -> Path:
    """A memory cgroup with the limit, v1 or v2, without swap."""
    is_v1 = (V1 / "memory.limit_in_bytes").exists()
    group = (V1 if is_v1 else V2) / f"smoltools-{os.getpid()}"
    group.mkdir()
    names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] if is_v1 else ["memory.max"]
    for name in names:
        if (group / name).exists():
            (group / name).write_text(str(limit_bytes))
    if not is_v1 and (group / "memory.swap.max").exists():
        (group / "memory.swap.max").write_text("0")
    return group


def outcome(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """The plan and the call, or what went wrong (a killed process has said nothing)."""
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1:] or [f"killed by signal {-done.returncode}"]}
    document = json.loads(done.stdout)
    plan, memory = document["plan"], document["plan"]["memory"]
    return {
        "planned_mib": memory["total_bytes"] // MIB,
        "available_mib": memory["available_bytes"] // MIB,
        "device_profile": plan["device_profile"],
        **{key: plan[key] for key in ("n_ctx", "kv_type_k", "n_ubatch", "n_threads")},
        "calls": document["tool_calls"],
        "timings": document["timings"],
    }


def counted(group: Path) -> dict[str, int]:
    """The cgroup's own figures: the peak, and how often it had to take pages back to stay under the limit."""
    files = {
        "peak_mib": ("memory.max_usage_in_bytes", "memory.peak"),
        "times_at_limit": ("memory.failcnt", ""),
    }
    found = {}
    for key, names in files.items():
        for name in filter(None, names):
            if (group / name).exists():
                value = int((group / name).read_text())
                found[key] = value // MIB if key.endswith("mib") else value
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return found | {"major_faults": int(stat.get("total_pgmajfault", stat.get("pgmajfault", 0)))}


if __name__ == "__main__":
    sys.exit(main())
