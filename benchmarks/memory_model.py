"""Does the memory plan hold? Predicted against measured peak resident memory, each combination in its own process.

    python -m benchmarks.memory_model [--quick] [--folder DIR] [--rows N...] [--json FILE]

The peak is VmHWM of the process that runs the program's own engine: load, a call whose prompt is longer than a step,
and beside it as many other answers as run at once. llama.cpp writes the whole KV cache with zeros when it makes it, so
all of it is resident without being filled (the column `made` shows it: resident memory after loading, before the first
token). Models are random weights in the real sizes; --quick takes tiny ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.random_4b import write_random_4b
from edge.models.store import resolve
from tests.tiny_gguf import TinyShape, write_gguf

MIB = 1 << 20


@dataclass(frozen=True)
class Combination:
    """One way to run one model. model: a key of `MODELS`."""

    model: str
    n_ctx: int
    kv_type: str = "f16"
    n_ubatch: int = 128
    n_parallel: int = 1
    use_extra_bufts: bool = False
    use_mmap: bool = True
    state_cache_mib: int = 64


# (architecture, quantization, tied, layers if not all); one file at a time is on the disk.
MODELS = {
    "qwen35 Q4_K_M": ("qwen35", "Q4_K_M", True, None),
    "qwen35 Q4_K_M untied": ("qwen35", "Q4_K_M", False, None),
    "qwen35 Q8_0": ("qwen35", "Q8_0", True, None),
    "qwen35 Q8_0 untied": ("qwen35", "Q8_0", False, None),
    "qwen3 Q4_K_M": ("qwen3", "Q4_K_M", True, None),
    "qwen3 Q8_0": ("qwen3", "Q8_0", True, None),
    "qwen3 18 layers Q4_K_M": ("qwen3", "Q4_K_M", True, 18),
    "qwen35 16 layers Q8_0": ("qwen35", "Q8_0", True, 16),
    "qwen35 16 layers Q4_K_M": ("qwen35", "Q4_K_M", True, 16),
}
COMBINATIONS = [
    Combination("demo Q8_0", 4096),
    Combination("demo Q8_0", 8192, "q8_0", 512, 2),
    Combination("demo Q8_0", 8192, "f32", 512),
    Combination("qwen35 Q4_K_M", 4096),
    Combination("qwen35 Q4_K_M", 4096, "f16", 512),
    Combination("qwen35 Q4_K_M", 16384, "q8_0"),
    Combination("qwen35 Q4_K_M", 32768, "f16", 256),
    Combination("qwen35 Q4_K_M", 4096, "f16", 128, 4, state_cache_mib=128),
    Combination("qwen35 Q4_K_M", 4096, use_extra_bufts=True),
    Combination("qwen35 Q4_K_M", 4096, use_extra_bufts=True, use_mmap=False),
    Combination("qwen35 Q4_K_M untied", 4096),
    Combination("qwen35 Q4_K_M untied", 32768, "q8_0", 256, 2),
    Combination("qwen35 Q8_0", 4096),
    Combination("qwen35 Q8_0", 32768),
    Combination("qwen3 Q4_K_M", 4096),
    Combination("qwen3 Q4_K_M", 4096, "f16", 512, 2),
    Combination("qwen3 Q4_K_M", 16384, "q8_0", 256),
    Combination("qwen3 Q4_K_M", 32768, "q8_0"),
    Combination("qwen3 Q4_K_M", 4096, use_extra_bufts=True),
    Combination("qwen3 Q8_0", 4096, "q8_0", 128, 4),
    Combination("qwen3 Q8_0", 16384),
    Combination("qwen3 18 layers Q4_K_M", 4096),
    Combination("qwen3 18 layers Q4_K_M", 4096, "q8_0", 512, 4),
    Combination("qwen3 18 layers Q4_K_M", 16384, "q8_0", 256),
    Combination("qwen3 18 layers Q4_K_M", 4096, use_extra_bufts=True),
    Combination("qwen35 16 layers Q8_0", 16384, "f16", 256, 2),
    Combination("qwen35 16 layers Q8_0", 32768, "q8_0"),
    Combination("qwen35 16 layers Q4_K_M", 4096, "f16", 128, 4, state_cache_mib=128),
    Combination("qwen35 16 layers Q4_K_M", 4096, use_extra_bufts=True, use_mmap=False),
]
TINY = {
    "qwen35 Q8_0": TinyShape(architecture="qwen35", n_ctx=65536, head_dim=32),
    "qwen3 Q8_0": TinyShape(architecture="qwen3", n_ctx=65536, head_dim=32),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny models, to try the script")
    parser.add_argument("--folder", type=Path, help="where the random models are kept for another run")
    parser.add_argument("--rows", type=int, nargs="*", help="only these combinations, from 0")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(json.loads(args.child))))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        rows = run_all(args.folder or Path(scratch), args)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["holds"] for row in rows) else 1


def run_all(folder: Path, args: argparse.Namespace) -> list[dict[str, object]]:
    """Measures the combinations in order, printing a line of Markdown for each."""
    print("| model | n_ctx | KV | n_ubatch | parallel | repack | predicted | measured | made | off |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows, wanted = [], args.rows or range(len(COMBINATIONS))
    chosen = [c for i, c in enumerate(COMBINATIONS) if i in wanted and (c.model in TINY or not args.quick)]
    for name in dict.fromkeys(c.model for c in chosen):
        path = model_path(folder, name, quick=args.quick)
        for combination in (c for c in chosen if c.model == name):
            if args.quick:
                combination = replace(combination, state_cache_mib=1)
            rows.append(compare(path, combination))
            print(table_row(combination, rows[-1]), flush=True)
        if args.folder is None and name.startswith("qwen"):
            path.unlink()
    return rows


def model_path(folder: Path, name: str, *, quick: bool) -> Path:
    """The file of a model; random ones are written unless they are there."""
    demo = resolve("demo:Q8_0", lambda line: None).path
    if name.startswith("demo"):
        return demo
    path = folder / f"{'tiny-' if quick else ''}{name.replace(' ', '-').lower()}.gguf"
    if not path.exists():
        if quick:
            return write_gguf(path, TINY[name])
        architecture, quantization, tied, n_layer = MODELS[name]
        write_random_4b(
            path,
            vocabulary_of=demo,
            architecture=architecture,
            quantization=quantization,
            tied=tied,
            n_layer=n_layer,
        )
    return path


def compare(path: Path, combination: Combination) -> dict[str, object]:
    """Predicted and measured bytes of one combination. holds: within 5 % or 64 MiB, and not under by 2 %."""
    predicted = predict(path, combination)
    command = [sys.executable, "-m", "benchmarks.memory_model", "--child"]
    child = json.dumps(asdict(combination) | {"path": str(path)})
    result = subprocess.run([*command, child], capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{combination}: {result.stderr.strip().splitlines()[-1:]}")
    measured = json.loads(result.stdout.splitlines()[-1])
    off = predicted - measured["peak_bytes"]
    close = abs(off) <= max(64 * MIB, 0.05 * measured["peak_bytes"])
    return {
        **asdict(combination),
        **measured,
        "predicted_bytes": predicted,
        "off_bytes": off,
        "holds": close and off >= -0.02 * measured["peak_bytes"],
    }


def predict(path: Path, combination: Combination) -> int:
    """What the plan says, from the file's header alone."""
    from edge.cli.plan import file_facts
    from profiles.cpu import read_cpu
    from profiles.footprint import RunOptions, footprint
    from profiles.reading import Tree

    facts = file_facts(path)
    options = RunOptions(
        n_ctx=combination.n_ctx,
        kv_type_k=combination.kv_type,
        kv_type_v=combination.kv_type,
        n_ubatch=combination.n_ubatch,
        n_parallel=combination.n_parallel,
        use_mmap=combination.use_mmap,
        use_extra_bufts=combination.use_extra_bufts,
        state_cache_bytes=combination.state_cache_mib * MIB,
    )
    features = read_cpu(Tree(Path("/"))).features.value or ()
    return footprint(facts.shape, facts.weights[0], options, cpu_features=features).total_bytes


def table_row(combination: Combination, row: dict[str, object]) -> str:
    def mib(key: str) -> str:
        return f"{int(str(row[key])) / MIB:,.0f}"

    off = f"{100 * int(str(row['off_bytes'])) / int(str(row['peak_bytes'])):+.1f} % ({mib('off_bytes')})"
    repack = "yes" if combination.use_extra_bufts else "no"
    cells = [
        combination.model,
        combination.n_ctx,
        combination.kv_type,
        combination.n_ubatch,
        combination.n_parallel,
    ]
    cells += [
        repack + ("" if combination.use_mmap else ", no mmap"),
        mib("predicted_bytes"),
        mib("peak_bytes"),
    ]
    cells += [mib("made_bytes"), off + ("" if row["holds"] else " **misses**")]
    return "| " + " | ".join(map(str, cells)) + " |"


def measure(spec: dict[str, object]) -> dict[str, int]:
    """In the child: runs the program's engine; the bytes resident at the peak."""
    from edge import ChatRequest
    from edge.chat.template import hermes_template
    from edge.cli import app, run  # what a command has in memory beside the engine
    from edge.engine.context import ContextOptions
    from edge.engine.engine import Engine
    from edge.engine.model import ModelOptions

    assert app
    assert run
    os.environ["GGML_NO_BACKTRACE"] = "1"
    context = ContextOptions(
        n_ctx=int(str(spec["n_ctx"])),
        n_batch=512,
        n_ubatch=int(str(spec["n_ubatch"])),
        n_threads=int(os.environ.get("THREADS", "2")),
        kv_type=str(spec["kv_type"]),
        snapshot_bytes=int(str(spec["state_cache_mib"])) * MIB,
    )
    model = ModelOptions(use_extra_bufts=bool(spec["use_extra_bufts"]), use_mmap=bool(spec["use_mmap"]))
    n_parallel = int(str(spec["n_parallel"]))
    template = hermes_template("You call tools.")
    with Engine(
        str(spec["path"]), model=model, context=context, chat_template=template, n_parallel=n_parallel
    ) as engine:
        made = resident("VmRSS")
        # With the tool's text more than the engine decodes of a prompt in one step, whatever n_ubatch allows.
        call = ChatRequest(
            messages=[{"role": "user", "content": "word " * 40}],
            tools=[TOOL],
            tool_choice="required",
            max_tokens=60,
        )
        talk = ChatRequest(messages=[{"role": "user", "content": "hello"}], max_tokens=2)
        requests = [
            call,
            *[replace(talk, messages=[{"role": "user", "content": f"{i} hi"}]) for i in range(n_parallel)],
        ]
        for running in [engine.submit(request) for request in requests]:
            for _ in running.events():
                pass
    return {"peak_bytes": resident("VmHWM"), "made_bytes": made}


TOOL = {
    "name": "switch",
    "parameters": {
        "type": "object",
        "properties": {"on": {"type": "boolean"}},
        "required": ["on"],
        "additionalProperties": False,
    },
}


def resident(name: str) -> int:
    """VmHWM (the peak) or VmRSS (now) of this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    sys.exit(main())
