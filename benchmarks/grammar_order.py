"""What accepting arguments in any order costs and gives: the choice of `ANY_ORDER` in edge/grammar/build_objects.py.

Usage: python benchmarks/grammar_order.py [DATA_FOLDER]

For each bound: the example calls of bfcl.jsonl accepted as written and with their arguments in random order, the
share of their characters that the rules force, the size of the GBNF, and the time to compile.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from pathlib import Path

from edge.grammar import CompiledTool, build_objects, parse_tools
from edge.grammar.build import build_call
from edge.types import Tool

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_DATA
    with (folder / "bfcl.jsonl").open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row.get("example_calls_valid")]
    cases = [
        (next(tool for tool in parse_tools(row["tools"]) if tool.name == call["name"]), call)
        for row in rows
        for call in row["example_calls"]
    ]
    print(f"{len(cases)} calls")
    print("bound  as written  shuffled  forced chars  GBNF bytes (median, p99)  compile ms (median, p99)")
    for bound in (0, 1, 2, 3, 4, 5, 6):
        build_objects.ANY_ORDER = bound
        print_row(bound, cases)


def print_row(bound: int, cases: list[tuple[Tool, dict]]) -> None:
    choose = random.Random(0)
    compiled: dict[str, CompiledTool] = {}
    times, sizes = [], []
    written = shuffled = forced = total = 0
    for tool, call in cases:
        key = tool.name + json.dumps(tool.parameters)
        if key not in compiled:
            start = time.perf_counter()
            built = build_call(tool)
            compiled[key] = CompiledTool("", tool.parameters, built.grammar, built.late_checks, tool)
            sizes.append(len(compiled[key].gbnf))
            times.append(time.perf_counter() - start)
        arguments = list(call["arguments"].items())
        written += follows(compiled[key], dict(arguments))
        n_forced, n_chars = forced_share(compiled[key], dict(arguments))
        forced, total = forced + n_forced, total + n_chars
        choose.shuffle(arguments)
        shuffled += follows(compiled[key], dict(arguments))
    shares = f"{written / len(cases):10.1%}  {shuffled / len(cases):8.1%}  {forced / total:12.1%}"
    size = f"{statistics.median(sizes):11.0f} {p99(sizes):12.0f}"
    print(f"{bound:5}  {shares}  {size}  {statistics.median(times) * 1e3:11.2f} {p99(times) * 1e3:12.1f}")


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def text_of(tool: CompiledTool, arguments: dict) -> str:
    name, written = (json.dumps(value, ensure_ascii=False) for value in (tool.tool.name, arguments))
    return f'\n{{"name": {name}, "arguments": {written}}}\n</tool_call>'


def follows(tool: CompiledTool, arguments: dict) -> bool:
    place = tool.matcher.start.after(text_of(tool, arguments))
    return place is not None and place.is_complete


def forced_share(tool: CompiledTool, arguments: dict) -> tuple[int, int]:
    """Characters of the call behind its name that leave no choice, and all of them."""
    text = text_of(tool, arguments)
    place = tool.matcher.start.after(text[: text.index('"arguments"')])
    forced = total = 0
    for char in text[text.index('"arguments"') :]:
        if place is None:
            return 0, 0
        forced, total = forced + bool(place.forced()), total + 1
        place = place.after(char)
    return forced, total


if __name__ == "__main__":
    main()
