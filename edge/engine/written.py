"""A text that is being written under rules: where the matcher stands in it, and what it would break to go on.

Shared by the constraint on a call and the one on a whole answer. Samples nothing and knows no grammar of llama.cpp.
"""

from __future__ import annotations

import codecs

from edge.errors import EngineError
from edge.grammar import CompiledSchema, Position


class DeadEnd(Exception):
    """Every token that the grammar allows here breaks the schema. Never leaves the engine."""


class WrittenText:
    """The bytes so far, and the matcher's place behind their last whole character, once it is known whose they are."""

    def __init__(self, rules: CompiledSchema | None = None) -> None:
        self.rules = rules
        self.data = b""
        self._place: Position | None = None
        self._n_matched = 0  # bytes in front of `_place`

    def rewrite(self, data: bytes) -> None:
        """Starts again with these bytes."""
        self.data, self._place, self._n_matched = data, None, 0

    def place(self) -> Position | None:
        """The matcher's place behind all whole characters; None while no rules are known."""
        if self.rules is None:
            return None
        if self._place is None:
            self._place, self._n_matched = self.rules.matcher.start, 0
        new = self.data[self._n_matched :]
        text = new[: len(new) - len(_incomplete_tail(new))].decode()
        self._n_matched += len(text.encode())
        self._place = self._place.after(text)
        if self._place is None:
            raise EngineError(f"the rules' two readers disagree after {self.data[-80:]!r}")
        return self._place

    def ends_inside_a_character(self) -> bool:
        """Whether bytes of the last character are still to come."""
        return bool(_incomplete_tail(self.data))

    def is_fault(self, piece: bytes) -> bool:
        """Whether the text breaks, with this piece and what must follow it, what a GBNF grammar does not hold."""
        if self._breaks_utf8(piece):
            return True
        if self.rules is None or not self.rules.late_checks:
            return False
        place = self.place()
        assert place is not None
        text = (self.data + piece).decode("utf-8", "ignore")
        following = place.after(text[len(self.data[: self._n_matched].decode()) :])
        if following is None:
            return self.rules.early_fault(text) is not None
        forced_text = following.forced()
        end = following.after(forced_text)
        is_whole = end is not None and not end.next_ranges()
        return self.rules.early_fault(text + forced_text, is_whole=is_whole) is not None

    def _breaks_utf8(self, piece: bytes) -> bool:
        """llama.cpp's grammars take a character that is written with more bytes than it needs; Python does not."""
        tail = _incomplete_tail(self.data)
        if piece.isascii() and not tail:
            return False
        try:
            codecs.getincrementaldecoder("utf-8")().decode(tail + piece)
        except UnicodeDecodeError:
            return True
        return False


def _incomplete_tail(data: bytes) -> bytes:
    """The bytes at the end that begin a character and do not finish it."""
    for n in range(1, min(len(data), 3) + 1):
        lead = data[-n]
        if lead < 0x80:
            return b""
        if lead >= 0xC0:
            n_bytes = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return data[-n:] if n < n_bytes else b""
    return b""
