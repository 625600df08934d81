"""What the evaluation set uses, so that training does not: its sentences, its own tools, its exact schemas."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVAL = Path(__file__).parent / "eval"
_WORD = re.compile(r"\w+")
_LIKE = 0.75  # shared words over all words: above this, two sentences count as the same request
_FEWEST_WORDS = 4  # shorter sentences ("Thanks a lot!") are nobody's own


@dataclass(frozen=True, slots=True)
class HeldOut:
    """texts: the word sets of users' sentences, by their size. tools: names that only the evaluation may use.
    schemas: as text."""

    texts: Mapping[int, Sequence[frozenset[str]]]
    tools: frozenset[str]
    schemas: frozenset[str]

    @classmethod
    def read(cls, folder: Path = EVAL) -> HeldOut:
        """From cases.jsonl, unseen.jsonl and tools.json of `folder`; a file that is missing holds nothing out."""
        cases = [case for name in ("cases.jsonl", "unseen.jsonl") for case in _json_lines(folder / name)]
        inline = [tool for case in cases for tool in case["tools"] if isinstance(tool, Mapping)]
        shared = _shared_tools(folder / "tools.json")
        texts: dict[int, list[frozenset[str]]] = {}
        for words in (_words(text) for case in cases for text in _user_texts(case)):
            texts.setdefault(len(words), []).append(words)
        return cls(
            texts=texts,
            # The tools of tools.json are the model's own: training is to use them, under other schemas.
            tools=frozenset(map(_name, inline)) - frozenset(map(_name, shared)),
            schemas=frozenset(map(_schema_text, (*inline, *shared))),
        )

    def has_tool(self, name: str) -> bool:
        return name in self.tools

    def has_schema(self, tool: Mapping[str, Any]) -> bool:
        """Whether the evaluation has a tool of this name, description and parameters (their descriptions aside)."""
        return _schema_text(tool) in self.schemas

    def has_text(self, text: str) -> bool:
        """Whether it shares three quarters of its words, and theirs, with one sentence there."""
        words = _words(text)
        if len(words) < _FEWEST_WORDS:
            return False
        # Sets of very different sizes cannot share enough; the composer asks ten thousand times.
        sizes = range(math.ceil(len(words) * _LIKE), math.floor(len(words) / _LIKE) + 1)
        near = (held for size in sizes for held in self.texts.get(size, ()))
        return any(len(words & held) >= _LIKE * len(words | held) for held in near)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def _shared_tools(path: Path) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return listed


def _user_texts(case: Mapping[str, Any]) -> list[str]:
    return [m["content"] for m in case["messages"] if m["role"] == "user" and m.get("content")]


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool["function"]["name"])


def _schema_text(tool: Mapping[str, Any]) -> str:
    function = tool["function"]
    properties = (function.get("parameters") or {}).get("properties") or {}
    undescribed = {
        name: {key: value for key, value in schema.items() if key != "description"}
        for name, schema in properties.items()
    }
    return json.dumps([function["name"], function.get("description"), undescribed], sort_keys=True)
