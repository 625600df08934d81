"""Time to first token of a new process, with the state of its tools on disk and without.

    python -m benchmarks.warm_start [--model demo] [--random-4b] [--tokens 1500] [--repeat 3] [--threads N]

For the model and for a hybrid one (random `qwen35`, or a 4B of random Q4_K weights): a process of its own per answer,
in turn without a state cache and with one that an earlier process filled, each time with another question about the
same tools. Prints medians and their ratio, and what a second turn of the conversation computed anew.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edge import ChatRequest, ContextOptions, SamplingOptions, Tool
from edge.chat.template import hermes_template
from edge.engine.engine import Engine
from edge.engine.state_cache import StateCacheOptions
from edge.models.store import resolve
from edge.types import Reply
from tests.tiny_gguf import TinyShape, write_gguf

# 70 million weights: a prefill takes seconds, and a state is of a size that counts.
SHAPE = TinyShape(
    "qwen35", n_layer=8, n_embd=768, n_ff=2304, head_dim=64, n_head=12, n_head_kv=4, n_ctx=8192,
    n_vocab=8192, n_key_heads=8, n_value_heads=16, state_size=64, interval=4,
)  # fmt: skip
QUESTIONS = [
    "What is the weather in Paris?",
    "Keep a note that the tea is ready.",
    "Who wrote to me?",
    "Now?",
]


def tool(i: int) -> Tool:
    """One of many tools, with a schema of the usual length."""
    properties = {
        "city": {"type": "string", "description": f"Name of the place that service {i} is asked about"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "Unit of the result"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14, "description": "How far to look ahead"},
    }
    schema = {"type": "object", "properties": properties, "required": ["city"]}
    return Tool(f"service_{i}_get_forecast", schema, f"Looks up what service {i} forecasts for a place")


def child(
    path: Path, n_tokens: int, threads: int | None, question: str, folder: Path | None
) -> dict[str, object]:
    """One process: loads, answers one question and a second turn."""
    started = time.perf_counter()
    cache = None if folder is None else StateCacheOptions(folder=folder)
    context = ContextOptions(n_ctx=4096, n_threads=threads)
    with Engine(path, chat_template=hermes_template(), context=context, state_cache=cache) as engine:
        tools = [tool(0)]
        while len(engine.tokenize("".join(json.dumps(t.to_openai()) for t in tools))) < n_tokens:
            tools.append(tool(len(tools)))
        messages: list[dict[str, object]] = [{"role": "user", "content": question}]
        first = _ask(engine, messages, tools)
        messages += [
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": "And then?"},
        ]
        second = _ask(engine, messages, tools)
        return {
            "ttft_s": first.timings.ttft_s,
            "from_load_s": first.timings.ttft_s + engine.load_s,
            "process_s": time.perf_counter() - started,
            "prompt_tokens": first.usage.prompt_tokens,
            "cached_tokens": first.usage.cached_tokens,
            "second_turn_computed": second.usage.prompt_tokens - second.usage.cached_tokens,
            "content": first.content,
        }


def _ask(engine: Engine, messages: list[dict[str, object]], tools: list[Tool]) -> Reply:
    sampling = SamplingOptions(temperature=0.0)
    return engine.chat(
        ChatRequest(messages=messages, tools=tools, tool_choice="auto", sampling=sampling, max_tokens=4)
    )


def in_a_process(
    path: Path, args: argparse.Namespace, question: str, folder: Path | None
) -> dict[str, object]:
    """What `child` says, from a process that has just been started."""
    command = [sys.executable, "-m", "benchmarks.warm_start", "--child", str(path), "--question", question]
    command += ["--tokens", str(args.tokens)]
    command += ["--threads", str(args.threads)] if args.threads else []
    command += ["--folder", str(folder)] if folder else []
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, object] = json.loads(out)
    return result


def measure(path: Path, args: argparse.Namespace) -> dict[str, object]:
    """Cold and warm in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_a_process(path, args, "Is anybody there?", folder)  # fills the cache
        state_bytes = sum(file.stat().st_size for file in folder.glob("*.state"))
        assert state_bytes, "no state was written"
        cold, warm = [], []
        for i in range(args.repeat):
            question = QUESTIONS[i % len(QUESTIONS)]
            cold.append(in_a_process(path, args, question, None))
            warm.append(in_a_process(path, args, question, folder))
            assert cold[-1]["cached_tokens"] == 0
            assert warm[-1]["cached_tokens"], "the state was not used"
    return {
        "model": path.name,
        "prompt_tokens": cold[0]["prompt_tokens"],
        "cached_tokens": warm[0]["cached_tokens"],
        "state_bytes": state_bytes,
        "cold_ttft_s": median(cold, "ttft_s"),
        "warm_ttft_s": median(warm, "ttft_s"),
        "warm_vs_cold": round(median(warm, "ttft_s") / median(cold, "ttft_s"), 3),
        "with_loading_warm_vs_cold": round(median(warm, "from_load_s") / median(cold, "from_load_s"), 3),
        "same_text": sum(c["content"] == w["content"] for c, w in zip(cold, warm, strict=True)),
        "of": args.repeat,
        "second_turn_computed": [run["second_turn_computed"] for run in warm],
    }


def median(runs: list[dict[str, object]], key: str) -> float:
    return round(statistics.median(float(str(run[key])) for run in runs), 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--random-4b", action="store_true", help="the hybrid model is a 4B of random weights")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--question", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.tokens, args.threads, args.question, args.folder)))
        return 0
    results = [measure(resolve(args.model, lambda line: print(line, file=sys.stderr)).path, args)]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "random-qwen35.gguf"
        if args.random_4b:
            from benchmarks.random_4b import write_random_4b

            write_random_4b(path, vocabulary_of=resolve(args.model, lambda line: None).path)
        else:
            write_gguf(path, SHAPE)
        results.append(measure(path, args))
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
