"""What does it save to decode forced text in runs instead of sampling it? And what do many tools cost?

    python -m benchmarks.forced [--model demo] [--repeat 5]
    python -m benchmarks.forced --random-4b [--repeat 2]      a Qwen3.5-4B of random Q4_K weights; 2.7 GB of disk

The same calls are written with forcing on and off, in turn: where the model would choose a token, it is sampled as
always and then replaced by the call's, so that both ways write the same tokens. `share` is the part of them that was
not sampled. `many_tools` compares the time of one call among 3 tools and among 200: the name is decoded against the
names, the arguments against one schema, so it should not grow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.alone import run_alone
from benchmarks.decode import NOTE, TIME, WEATHER
from benchmarks.random_4b import write_random_4b
from benchmarks.valid_calls import SHORT
from edge import ContextOptions, SamplingOptions, Tool
from edge.engine.engine import Engine
from edge.engine.generation import Generation, GenerationPlan
from edge.engine.sampling import GrammarCache, SamplerChain
from edge.engine.slot import Slot
from edge.grammar import compile_tool
from edge.models.store import resolve

CALLS: list[tuple[str, dict[str, object]]] = [
    ("get_weather", {"city": "Paris"}),
    ("get_time", {}),
    (
        "save_note",
        {"title": "Tea", "priority": "high", "pinned": True, "body": "Boil water, wait five minutes."},
    ),
    (
        "save_note",
        {"title": "Shopping", "priority": "low", "tags": ["food"], "pinned": False, "body": "Milk."},
    ),
]


class Scripted(SamplerChain):
    """Samples like its base and then says what stands at this place of `target`."""

    target: list[int]
    generation: Generation

    def sample(self, slot: Slot) -> int:
        super().sample(slot)
        return self.target[len(self.generation.tokens)]


def write_call(
    engine: Engine,
    grammars: GrammarCache,
    tools: list[Tool],
    call: tuple[str, dict[str, object]],
    *,
    force: bool,
) -> tuple[float, float]:
    """Seconds from the prefilled prompt to the end of the call, and the share of its tokens that was forced."""
    vocab = engine.model.vocab
    opener = vocab.tokenize("<tool_call>")
    text = json.dumps({"name": call[0], "arguments": call[1]})
    target = opener + vocab.tokenize(f"\n{text}\n</tool_call>", parse_special=False)
    prompt = vocab.tokenize("<|im_start|>user\nGo.<|im_end|>\n<|im_start|>assistant\n")
    slot = engine.context.slots[0]
    slot.clear()
    slot.decode(prompt[:-1])  # so that it is kept, and only the call is timed
    plan = GenerationPlan(
        prompt=prompt,
        forced=opener,
        tools=[compile_tool(tool) for tool in tools],
        max_tokens=400,
        max_calls=1,
        force_text=force,
    )
    chain = Scripted(SamplingOptions(temperature=0.0), vocab)
    chain.target = target
    chain.generation = generation = Generation(plan, slot, chain, grammars)
    reply = run_alone(generation, slot)
    chain.close()
    assert generation.tokens == target, "the same tokens, or the comparison is void"
    seconds = reply.timings.prefill_s + reply.timings.decode_s
    return seconds, reply.usage.forced_tokens / reply.usage.completion_tokens


def forcing(engine: Engine, grammars: GrammarCache, repeat: int) -> dict[str, object]:
    """Each call with forcing on and off."""
    rows = []
    for call in CALLS:
        times: dict[bool, list[float]] = {True: [], False: []}
        share = 0.0
        for _ in range(repeat):
            for force in (True, False):
                seconds, forced_share = write_call(engine, grammars, [WEATHER, TIME, NOTE], call, force=force)
                times[force].append(seconds)
                share = max(share, forced_share)
        on, off = (statistics.median(times[force]) for force in (True, False))
        rows.append(
            {
                "call": call[0],
                "share": round(share, 2),
                "seconds_off": round(off, 3),
                "on_vs_off": round(on / off, 3),
            }
        )
    ratios = [float(str(row["on_vs_off"])) for row in rows]
    return {
        "calls": rows,
        "median_on_vs_off": round(statistics.median(ratios), 3),
        "worst_on_vs_off": max(ratios),
    }


def many_tools(engine: Engine, grammars: GrammarCache, repeat: int) -> dict[str, object]:
    """The same call among few and many tools."""
    few = [NOTE, WEATHER, TIME]
    many = few + [Tool(f"other_{i}", NOTE.parameters, "") for i in range(197)]
    times: dict[int, list[float]] = {3: [], 200: []}
    for _ in range(2 * repeat):
        for tools in (few, many):
            times[len(tools)].append(write_call(engine, grammars, tools, CALLS[2], force=False)[0])
    medians = {n: statistics.median(values) for n, values in times.items()}
    return {
        "seconds": {n: round(value, 3) for n, value in medians.items()},
        "ratio_200_vs_3": round(medians[200] / medians[3], 3),
    }


def measure(path: Path, args: argparse.Namespace) -> dict[str, object]:
    options = ContextOptions(n_ctx=1024, n_threads=args.threads)
    with Engine(path, chat_template=SHORT, context=options) as engine:
        grammars = GrammarCache(engine.model.vocab)
        _ = grammars.tree
        write_call(engine, grammars, [TIME], CALLS[1], force=True)  # everything is loaded and warm now
        result = {
            "model": engine.facts["name"],
            "n_threads": engine.context.plan.n_threads,
            "forcing": forcing(engine, grammars, args.repeat),
            "many_tools": many_tools(engine, grammars, args.repeat),
        }
        grammars.close()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--random-4b", action="store_true")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    path = resolve(args.model, lambda line: print(line, file=sys.stderr)).path
    if args.random_4b:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(write_random_4b(Path(folder) / "random-4b.gguf", vocabulary_of=path), args)
    else:
        result = measure(path, args)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
