"""How much of real schemas the grammar holds: compiled, accepted, refused, and the time to compile.

Usage: python benchmarks/grammar_coverage.py [DATA_FOLDER] [--failures N] [--no-reorder]

DATA_FOLDER holds mcp_tools.jsonl, bfcl.jsonl, jsonschemabench.jsonl, jsts.jsonl; missing ones are skipped. A value is
accepted if its text, as json.dumps writes it, follows the rules to the end and passes the last check. Values are tried
as they are written and with properties in the schema's order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge.errors import EdgeError
from edge.grammar import CompiledSchema, CompiledTool, compile_schema, compile_tool, parse_tools

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--failures", type=int, default=0, help="print so many cases that are not right")
    options = parser.parse_args()
    report = Report(options.failures)
    for name in ("mcp_tools", "bfcl"):
        if rows := read(options.data / f"{name}.jsonl"):
            report.tools(name, rows)
    for name in ("jsonschemabench", "jsts"):
        if rows := read(options.data / f"{name}.jsonl"):
            report.schemas(name, [row for row in rows if not is_optional(row)])


def is_optional(row: dict) -> bool:
    """Cases of the test suite that an implementation may decide either way: formats as annotations, and the like."""
    return bool(row.get("optional")) or str(row.get("file", "")).startswith("format")


def read(path: Path) -> list[dict]:
    if not path.exists():
        print(f"{path.name}: not here, skipped", file=sys.stderr)
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class Report:
    def __init__(self, n_failures: int) -> None:
        self._left = n_failures

    def _fail(self, *what: object) -> None:
        if self._left > 0:
            self._left -= 1
            print("  -", *(str(each)[:300] for each in what))

    def tools(self, name: str, rows: list[dict]) -> None:
        """Tools that compile, and example calls that are accepted."""
        tools = calls = compiled = accepted = late = 0
        times: list[float] = []
        gbnf_bytes: list[int] = []
        seen: set[str] = set()
        for row in rows:
            known: dict[str, CompiledTool] = {}
            for tool in parse_tools(row.get("tools") or [row["tool"]]):
                tools += 1
                start = time.process_time()
                try:
                    known[tool.name] = compile_tool(tool)
                    gbnf_bytes.append(len(known[tool.name].gbnf))
                    compiled += 1
                    late += bool(known[tool.name].late_checks)
                except EdgeError as exc:
                    self._fail(row["id"], exc)
                if (key := dumps([tool.name, tool.parameters, tool.description])) not in seen:
                    times.append(time.process_time() - start)  # the same tool again comes from memory
                    seen.add(key)
            for call in row.get("example_calls", []) if row.get("example_calls_valid") else []:
                calls += 1
                tool = known.get(call["name"])
                text = f'\n{{"name": {dumps(call["name"])}, "arguments": {dumps(call["arguments"])}}}\n</tool_call>'
                if tool and follows(tool, text) and tool.validate(call["arguments"]) is None:
                    accepted += 1
                else:
                    self._fail(row["id"], text)
        print(f"{name}: {compiled} of {tools} tools compile, {late} of them with late checks")
        print(f"  {accepted} of {calls} example calls accepted")
        print(f"  GBNF bytes: median {statistics.median(gbnf_bytes):.0f}, largest {max(gbnf_bytes)}")
        print_times(times)

    def schemas(self, name: str, rows: list[dict]) -> None:
        """Schemas that are fully right: every valid value accepted, every other refused."""
        outcomes: Counter[str] = Counter()
        times: list[float] = []
        in_order = reordered_only = late = 0
        for row, schema, tests in grouped(rows):
            start = time.process_time()
            try:
                compiled = compile_schema(schema)
                _ = compiled.gbnf
            except EdgeError as exc:
                outcomes["refused at the door"] += 1
                self._fail(row, exc)
                continue
            finally:
                times.append(time.process_time() - start)
            late += bool(compiled.late_checks)
            wrong: set[str] = set()
            for test in tests:
                as_written = accepts(compiled, test["data"])
                by_rules = as_written or accepts(compiled, reordered(test["data"], schema, schema))
                if test["valid"]:
                    in_order += as_written
                    reordered_only += by_rules and not as_written
                if by_rules != test["valid"]:
                    wrong.add("wrong accept" if by_rules else "wrong reject")
                    self._fail(row, next(iter(wrong)), dumps(test["data"]), compiled.validate(test["data"]))
            outcomes[" and ".join(sorted(wrong)) or "fully right"] += 1
        total = sum(outcomes.values())
        print(
            f"{name}: {outcomes['fully right'] / total:.1%} of {total} schemas fully right; {dict(outcomes)}"
        )
        print(
            f"  {late} with late checks; valid values accepted as written {in_order}, only reordered {reordered_only}"
        )
        print_times(times)


def grouped(rows: list[dict]) -> Iterator[tuple[str, object, list[dict]]]:
    """(id, schema, tests); rows of one test each are put together by schema."""
    groups: dict[str, tuple[str, object, list[dict]]] = {}
    for row in rows:
        key = dumps(row["schema"]) + str(row.get("draft"))
        _, _, tests = groups.setdefault(key, (row["id"], row["schema"], []))
        tests += row["tests"] if "tests" in row else [{"data": row["data"], "valid": row["valid"]}]
    yield from groups.values()


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def follows(compiled: CompiledSchema, text: str) -> bool:
    place = compiled.matcher.start.after(text)
    return place is not None and place.is_complete


def accepts(compiled: CompiledSchema, value: object) -> bool:
    return follows(compiled, dumps(value)) and compiled.validate(value) is None


def reordered(value: object, schema: object, root: object, depth: int = 0) -> object:
    """The value with properties in the order in which any schema that applies here names them."""
    if depth > 30:
        return value
    if isinstance(value, list):
        return [
            reordered(item, items_schema(schema, index, root), root, depth + 1)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, Mapping):
        return value
    order = property_schemas(schema, root, set())
    names = [name for name in order if name in value] + [name for name in value if name not in order]
    return {name: reordered(value[name], order.get(name, True), root, depth + 1) for name in names}


def applied(schema: object, root: object, seen: set[int]) -> Iterator[Mapping[str, object]]:
    """The schema and those that speak about the same value."""
    if not isinstance(schema, Mapping) or id(schema) in seen:
        return
    seen.add(id(schema))
    if isinstance(ref := schema.get("$ref"), str) and ref.startswith("#"):
        target: object = root
        for step in ref[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            target = target.get(step) if isinstance(target, Mapping) else None
        yield from applied(target, root, seen)
    yield schema
    for keyword in ("allOf", "anyOf", "oneOf"):
        for each in schema.get(keyword, []):
            yield from applied(each, root, seen)
    for keyword in ("if", "then", "else", "additionalProperties"):
        if keyword != "additionalProperties":
            yield from applied(schema.get(keyword), root, seen)


def property_schemas(schema: object, root: object, seen: set[int]) -> dict[str, object]:
    found: dict[str, list[object]] = {}
    for each in applied(schema, root, seen):
        for name, below in each.get("properties", {}).items():
            found.setdefault(name, []).append(below)
    required = [name for each in applied(schema, root, set()) for name in each.get("required", []) or []]
    for name in required:
        found.setdefault(name, [])
    return {name: {"allOf": below} for name, below in found.items()}


def items_schema(schema: object, index: int, root: object) -> object:
    below: list[object] = []
    for each in applied(schema, root, set()):
        items, prefix = each.get("items"), each.get("prefixItems", [])
        if isinstance(items, list):
            prefix, items = items, each.get("additionalItems")
        below.append(prefix[index] if index < len(prefix) else items)
    return {"allOf": below}


def print_times(times: list[float]) -> None:
    times = sorted(times)
    p99 = times[min(int(len(times) * 0.99), len(times) - 1)]
    figures = f"median {statistics.median(times) * 1e3:.2f}, p99 {p99 * 1e3:.1f}, worst {times[-1] * 1e3:.1f}"
    print(f"  CPU ms to compile and write as GBNF, {len(times)} distinct: {figures}")


if __name__ == "__main__":
    main()
