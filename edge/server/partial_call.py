"""The arguments of a call out of its text while it is written, for clients that want to see them grow."""

from __future__ import annotations

import json
import re

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')


class PartialCall:
    """Feed it the call's text so far; it gives what is new of the arguments."""

    def __init__(self) -> None:
        self.name: str | None = None  # once it is written
        self._scanned = 0
        self._depth = 0
        self._in_string = self._escaped = False
        self._is_whole = False

    def feed(self, text: str) -> str:
        """What is new of the arguments' JSON; nothing behind its end."""
        if self.name is None:
            head = _HEAD.match(text)
            if head is None:
                return ""
            self.name = json.loads(head[1])
            self._scanned = head.end()
        start = self._scanned
        while self._scanned < len(text) and not self._is_whole:
            self._step(text[self._scanned])
            self._scanned += 1
        return text[start : self._scanned]

    def _step(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self._in_string:
            self._escaped, self._in_string = char == "\\", char != '"'
        elif char == '"':
            self._in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            self._is_whole = self._depth == 0
