"""What the model really wrote in earlier turns, so that the next turn's prompt goes on from it to the token.

A client sends an answer back as it was parsed: content trimmed, arguments as JSON. Rendered again, that text can differ
from what was written, and the same text can be tokenized differently; the state that the model has of it would then be
computed anew. Where the client's turn is the answer that was given, the tokens that were written take its place.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from edge.types import Reply

MAX_TURNS = 64


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer with everything before it.

    messages: normalised, up to the answer. setting: what else the prompt was rendered from, comparable. base: the
    prompt's text without the opening of the answer. tokens: of the prompt and of the answer as it was written.
    """

    messages: Sequence[Mapping[str, object]]
    setting: object
    base: str
    tokens: list[int]
    reply: Reply

    def goes_on_in(self, messages: Sequence[Mapping[str, object]], setting: object) -> bool:
        """Whether these messages are this turn's, its answer, and more."""
        n = len(self.messages)
        return (
            len(messages) > n
            and self.setting == setting
            and _is_answer(messages[n], self.reply)
            and list(messages[:n]) == list(self.messages)
        )


def _is_answer(message: Mapping[str, object], reply: Reply) -> bool:
    if (
        message.get("role") != "assistant"
        or str(message.get("content") or "").strip() != reply.content.strip()
    ):
        return False
    calls = message.get("tool_calls") or []
    assert isinstance(calls, list)
    written: list[object] = [{"name": call.name, "arguments": call.arguments} for call in reply.tool_calls]
    # As text, because 1 and 1.0 and true are equal to Python.
    return _text([call["function"] for call in calls]) == _text(written)


def _text(calls: list[object]) -> str:
    return json.dumps(calls, sort_keys=True, ensure_ascii=False)


class History:
    """The last turns of all conversations. For several threads."""

    def __init__(self) -> None:
        self._turns: OrderedDict[int, Turn] = OrderedDict()
        self._n_added = 0
        self._lock = Lock()

    def add(self, turn: Turn) -> None:
        """Remembers a turn, and forgets the one used longest ago where there are too many."""
        with self._lock:
            self._n_added += 1
            self._turns[self._n_added] = turn
            if len(self._turns) > MAX_TURNS:
                self._turns.popitem(last=False)

    def find(self, messages: Sequence[Mapping[str, object]], setting: object) -> Turn | None:
        """The longest turn that these messages go on from."""
        with self._lock:
            found = [(key, t) for key, t in self._turns.items() if t.goes_on_in(messages, setting)]
            if not found:
                return None
            key, turn = max(found, key=lambda item: (len(item[1].messages), item[0]))
            self._turns.move_to_end(key)
            return turn
