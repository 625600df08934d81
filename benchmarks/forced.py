"""What does it save to decode forced text in runs instead of sampling it? And what do many tools cost?

    python -m benchmarks.forced [--model demo] [--repeat 3]

Greedy, one call each, the same questions with forcing on and off in turn. `share` is the part of a call's tokens that
was not sampled. `many_tools` compares the time per token of a call among 3 tools and among 200: the name is decoded
against the names, the arguments against one schema, so it should not grow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from benchmarks.decode import NOTE, TIME, WEATHER
from benchmarks.valid_calls import SHORT
from edge import ChatRequest, ChatTemplate, ContextOptions, SamplingOptions, Tool
from edge.chat.template import hermes_template
from edge.engine.engine import Engine
from edge.models.store import resolve

QUESTIONS = [
    "What is the weather in Paris?",
    "Is it cold in Oslo today?",
    "What time is it?",
    "Save a note called Tea: boil water, wait five minutes. It is important.",
    "Remind me in a note to buy milk, bread and eggs.",
]


def open_engine(path: Path, template: ChatTemplate, args: argparse.Namespace) -> Engine:
    return Engine(path, chat_template=template, context=ContextOptions(n_ctx=2048, n_threads=args.threads))


def ask(engine: Engine, question: str, tools: list[Tool], *, force_text: bool) -> dict[str, object]:
    """One required call: seconds from the prefilled prompt on, and what was written."""
    request = ChatRequest(
        messages=[{"role": "user", "content": question}],
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
        sampling=SamplingOptions(temperature=0.0),
        force_text=force_text,
    )
    engine.chat(request)  # the second time the prompt is in the cache, and prefilling is not part of it
    reply = engine.chat(request)
    assert engine.last_generation is not None
    return {
        "seconds": reply.timings.prefill_s + reply.timings.decode_s,
        "tokens": reply.usage.completion_tokens,
        "forced": reply.usage.forced_tokens,
        "text": engine.model.vocab.text(engine.last_generation.tokens),
    }


def forcing(engine: Engine, repeat: int) -> dict[str, object]:
    tools = [WEATHER, TIME, NOTE]
    rows = []
    for question in QUESTIONS:
        on = [ask(engine, question, tools, force_text=True) for _ in range(repeat)]
        off = [ask(engine, question, tools, force_text=False) for _ in range(repeat)]
        seconds = [statistics.median(float(str(r["seconds"])) for r in runs) for runs in (on, off)]
        rows.append(
            {
                "question": question,
                "same_text": on[0]["text"] == off[0]["text"],
                "tokens": on[0]["tokens"],
                "share": round(int(str(on[0]["forced"])) / int(str(on[0]["tokens"])), 2),
                "time_on_vs_off": round(seconds[0] / seconds[1], 2),
            }
        )
    ratios = [float(str(row["time_on_vs_off"])) for row in rows]
    return {"cases": rows, "median_time_on_vs_off": statistics.median(ratios), "worst": max(ratios)}


def many_tools(engine: Engine, repeat: int) -> dict[str, object]:
    """Time per token of the same call among few and many tools; the short template leaves them out of the prompt."""
    others = [Tool(f"other_{i}", NOTE.parameters, "") for i in range(197)]
    few, many = [NOTE, WEATHER, TIME], [NOTE, WEATHER, TIME, *others]
    per_token: dict[int, list[float]] = {3: [], 200: []}
    for _ in range(2 * repeat):
        for tools in (few, many):
            run = ask(engine, QUESTIONS[3], tools, force_text=False)
            per_token[len(tools)].append(float(str(run["seconds"])) / int(str(run["tokens"])))
    medians = {n: statistics.median(times) for n, times in per_token.items()}
    return {
        "ms_per_token": {n: round(1000 * t, 3) for n, t in medians.items()},
        "ratio": round(medians[200] / medians[3], 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    path = resolve(args.model, lambda line: print(line, file=sys.stderr)).path
    with open_engine(path, hermes_template(), args) as engine:
        result: dict[str, object] = {"model": engine.facts["name"], "forcing": forcing(engine, args.repeat)}
    with open_engine(path, SHORT, args) as engine:
        result["many_tools"] = many_tools(engine, args.repeat)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
