"""Prints what the written material holds, as the tables of data/README.md.

python -m demo.counts
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator

from demo.material import SCENARIOS, Dialog, Material
from demo.reading import read_material
from demo.slots import MaterialError

_NUMBERED = re.compile(r"(?<=_)\d+$|(?<=_[a-z])\d+(_\d+)?$")


def main() -> int:
    try:
        material = read_material()
    except MaterialError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print("\n".join(tables(material)))
    return 0


def tables(material: Material) -> Iterator[str]:
    """Markdown, a line each: what the files hold, numbered ones together, then the written pieces of each scenario."""
    yield "| file | tools | requests | for no tool | dialogues | settings | dialogues in settings |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    columns = _columns(material)
    files = sorted({name for column in columns for name in column})
    for name in files:
        yield _row(f"{name}.yaml", [column[name] for column in columns])
    yield _row("**all**", [column.total() for column in columns])
    yield ""
    yield "| scenario | written pieces |"
    yield "|---|---:|"
    counts = _scenarios(material)
    yield from (_row(name, [counts[name]]) for name in SCENARIOS)


def _columns(material: Material) -> list[Counter[str]]:
    """For each column, the number in each file or row of numbered files."""
    tools, settings = material.tools.values(), material.settings
    requests = Counter[str]()
    for tool in tools:
        requests[tool.file] += len(tool.requests) + len(tool.many)
    in_settings = Counter[str]()
    for setting in settings:
        in_settings[setting.file] += len(setting.dialogs)
    in_files = [
        Counter(tool.file for tool in tools),
        requests,
        Counter(dialog.file for dialog in material.no_tool),
        Counter(dialog.file for dialog in material.dialogs),
        Counter(setting.file for setting in settings),
        in_settings,
    ]
    return [_together(column) for column in in_files]


def _together(column: Counter[str]) -> Counter[str]:
    rows = Counter[str]()
    for name, number in column.items():
        rows[_NUMBERED.sub("*", name)] += number
    return rows


def _scenarios(material: Material) -> Counter[str]:
    counts = Counter(dialog.scenario for dialog in _all_dialogs(material))
    counts["single_tool"] += sum(len(tool.requests) for tool in material.tools.values())
    counts["multi_tool_parallel"] += sum(len(tool.many) for tool in material.tools.values())
    return counts


def _all_dialogs(material: Material) -> Iterator[Dialog]:
    yield from material.no_tool
    yield from material.dialogs
    for setting in material.settings:
        yield from setting.dialogs


def _row(name: str, numbers: list[int]) -> str:
    return f"| {name} | " + " | ".join(f"{number:,}" if number else "" for number in numbers) + " |"


if __name__ == "__main__":
    sys.exit(main())
