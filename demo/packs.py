"""Groups of dialogues to token ids: one shared beginning, and branches that each see it and themselves only.

In a group the system text and the tools are most of the tokens. Computed once for six dialogues instead of six times,
a training step costs less than half. The branches' positions continue after the beginning, so that each of them looks
to the model like a conversation of its own (`attention.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.chat.template import ChatTemplate, render_prompt
from edge.grammar.tools import parse_tools

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEMPLATE = Path(__file__).parent / "chat_template.jinja"
_ANSWER = "<|im_start|>assistant\n"
_END = "<|im_end|>"
_FIRST = "<|im_start|>user\n"
_CALLED = re.compile(r'<tool_call>\n\{"name": "([^"]*)"')


@dataclass(frozen=True, slots=True)
class Branch:
    """ids: behind the shared beginning. is_target: for each id, whether the model is to learn it. is_name: whether it
    is of the name of a tool that is called."""

    ids: tuple[int, ...]
    is_target: tuple[bool, ...]
    is_name: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """prefix: ids of the system text and the tools; never learned."""

    prefix: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def n_tokens(self) -> int:
        return len(self.prefix) + sum(len(branch.ids) for branch in self.branches)


def read_packs(examples: Path, tokenizer: Tokenizer, *, max_tokens: int) -> Iterator[Pack]:
    """One pack a group; branches that would make it longer than max_tokens are left out."""
    template = ChatTemplate(TEMPLATE.read_text(encoding="utf-8"), TEMPLATE.name)
    with examples.open(encoding="utf-8") as lines:
        for line in lines:
            pack = _pack(json.loads(line), template, tokenizer, max_tokens)
            if pack.branches:
                yield pack


def _pack(group: Mapping[str, Any], template: ChatTemplate, tokenizer: Tokenizer, max_tokens: int) -> Pack:
    tools = parse_tools(group["tools"])
    system = [{"role": "system", "content": group["system"]}] if group["system"] else []
    texts = [
        render_prompt(template, [*system, *_numbered(dialog["messages"])], tools, opens_answer=False).text
        for dialog in group["dialogs"]
    ]
    beginning = texts[0].partition(_FIRST)[0]
    prefix = tuple(tokenizer.encode(beginning, add_special_tokens=False).ids)
    room = max_tokens - len(prefix)
    branches = []
    for dialog, text in zip(group["dialogs"], texts, strict=True):
        trained = [m.get("train", True) for m in dialog["messages"] if m["role"] == "assistant"]
        branch = _branch(text.removeprefix(beginning), trained, tokenizer)
        if len(branch.ids) <= room:
            room -= len(branch.ids)
            branches.append(branch)
    return Pack(prefix, tuple(branches))


def _numbered(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """With call ids, as the chat room wants them: results follow their calls in order."""
    numbered: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        entry = {key: value for key, value in message.items() if key != "train"}
        if entry.get("tool_calls"):
            entry["tool_calls"] = [
                {**call, "id": f"call_{len(numbered)}_{i}"} for i, call in enumerate(entry["tool_calls"])
            ]
            waiting = [call["id"] for call in entry["tool_calls"]]
        if entry["role"] == "tool":
            entry["tool_call_id"] = waiting.pop(0)
        numbered.append(entry)
    return numbered


def _branch(text: str, trained: Sequence[bool], tokenizer: Tokenizer) -> Branch:
    """Cut where the answers begin and end, so that the ids are those that decoding sees and makes."""
    ids: list[int] = []
    is_target: list[bool] = []
    is_name: list[bool] = []

    def add(part: str, learned: bool) -> None:
        new = tokenizer.encode(part, add_special_tokens=False)
        ids.extend(new.ids)
        is_target.extend([learned] * len(new.ids))
        names = [match.span(1) for match in _CALLED.finditer(part)] if learned else []
        is_name.extend(
            any(begin < stop and start < end for start, stop in names) for begin, end in new.offsets
        )

    before, *answers = text.split(_ANSWER)
    for number, answer in enumerate(answers):
        add(before + _ANSWER, learned=False)
        said, end, before = answer.partition(_END)
        add(said + end, learned=trained[number])
    # What follows the last answer teaches nothing.
    return Branch(tuple(ids), tuple(is_target), tuple(is_name))
