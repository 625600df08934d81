"""What the evaluation set uses, so that training does not: its sentences, its own tools, its exact schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVAL = Path(__file__).parent / "eval"
_WORD = re.compile(r"\w+")
_LIKE = 0.75  # shared words over all words: above this, two sentences count as the same request


@dataclass(frozen=True)
class HeldOut:
    """texts: the word sets of users' sentences. tools: names that only the evaluation may use. schemas: as text."""

    texts: tuple[frozenset[str], ...]
    tools: frozenset[str]
    schemas: frozenset[str]

    @classmethod
    def read(cls, folder: Path = EVAL, shared_tools: Iterable[str] = ()) -> HeldOut:
        """From cases.jsonl, unseen.jsonl and tools.json of `folder`."""
        texts: list[frozenset[str]] = []
        tools: set[str] = set()
        schemas: set[str] = set()
        for name in ("cases.jsonl", "unseen.jsonl"):
            for line in (
                (folder / name).read_text(encoding="utf-8").splitlines() if (folder / name).exists() else ()
            ):
                case = json.loads(line)
                texts += [
                    _words(m["content"]) for m in case["messages"] if m["role"] == "user" and m.get("content")
                ]
                inline = [tool for tool in case["tools"] if isinstance(tool, dict)]
                schemas.update(_schema_text(tool) for tool in inline)
                tools.update(tool["function"]["name"] for tool in inline)
        if (folder / "tools.json").exists():
            listed = json.loads((folder / "tools.json").read_text(encoding="utf-8"))
            schemas.update(_schema_text(tool) for tool in listed)
            tools -= {tool["function"]["name"] for tool in listed}
        return cls(tuple(texts), frozenset(tools), frozenset(schemas))

    def has_tool(self, name: str) -> bool:
        return name in self.tools

    def has_schema(self, tool: Mapping[str, Any]) -> bool:
        return _schema_text(tool) in self.schemas

    def has_text(self, text: str) -> bool:
        words = _words(text)
        # Very short sentences ("Thanks!") are nobody's own.
        return len(words) > 3 and any(len(words & held) >= _LIKE * len(words | held) for held in self.texts)


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def _schema_text(tool: Mapping[str, Any]) -> str:
    function = tool["function"]
    properties = (function.get("parameters") or {}).get("properties") or {}
    plain = {
        name: {k: v for k, v in schema.items() if k != "description"} for name, schema in properties.items()
    }
    return json.dumps([function["name"], function.get("description"), plain], sort_keys=True)
