"""What the composer draws from: tools, requests and dialogues, in shuffled rounds, and one source of randomness."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from demo.held_out import HeldOut
from demo.material import Dialog, Material, Request, Setting, WrittenTool
from demo.pools import NEED_TODAY
from demo.slots import SLOT

# Tools that can stand in for almost any other: beside them "I have no tool for that" would be a wrong lesson.
_GENERAL = frozenset(
    {"web_search", "get_webpage", "http_request", "shell_command", "execute_python", "database_query"}
)
_Item = TypeVar("_Item")


class Stock:
    """The material that training may use, drawn from a seed."""

    def __init__(self, material: Material, rng: random.Random, held_out: HeldOut) -> None:
        self.rng = rng
        self.tools = {name: tool for name, tool in material.tools.items() if not held_out.has_tool(name)}
        written = (*material.no_tool, *material.dialogs)
        usable = [dialog for dialog in written if all(name in self.tools for name in dialog.tools)]
        self._short = [dialog for dialog in usable if _is_short(dialog) and _is_no_tool(dialog)]
        self._dialogs = [dialog for dialog in usable if not _is_short(dialog)]
        self._dialogs += [dialog for dialog in usable if _is_short(dialog) and not _is_no_tool(dialog)]
        self._settings = [s for s in material.settings if all(name in self.tools for name in s.tools)]
        self._dated = {
            name: dated
            for name, tool in self.tools.items()
            if (dated := list(filter(_is_dated, tool.requests)))
        }
        self._by_file: dict[str, list[str]] = {}
        for tool in self.tools.values():
            self._by_file.setdefault(tool.file, []).append(tool.name)
        self._names: dict[bool, list[str]] = {True: [], False: []}
        for name in (name for names in self._by_file.values() for name in names):
            self._names[self.tools[name].is_core].append(name)
        self._rounds: dict[str, list[Any]] = {}

    def names(self, *, core: bool) -> list[str]:
        """The 15 tools of the card, or all others, file by file."""
        return self._names[core]

    def names_beside(self, name: str) -> list[str]:
        """The tools of the same file, this one among them."""
        return self._by_file[self.tools[name].file]

    def focus(self, *, core: bool) -> str:
        return self._next(f"focus {core}", self.names(core=core))

    def dialog(self) -> Dialog:
        """A dialogue that is more than a sentence and an answer in text."""
        drawn = self._next("dialogs", self._dialogs)
        while drawn.scenario == "single_tool" and self.rng.random() < 0.6:
            drawn = self._next("dialogs", self._dialogs)  # there are many of these, and they teach less
        return drawn

    @property
    def has_settings(self) -> bool:
        return bool(self._settings)

    def setting(self) -> Setting:
        return self._next("settings", self._settings)

    def request(self, tool: str) -> Request:
        return self._next(f"requests {tool}", self.tools[tool].requests)

    @property
    def has_dated(self) -> bool:
        return bool(self._dated)

    def dated_tool(self) -> str:
        """One with a request that names a day; the more of them it has, the more often."""
        return self._next("dated", [name for name, requests in self._dated.items() for _ in requests])

    def dated_request(self, tool: str) -> Request:
        return self._next(f"dated {tool}", self._dated[tool])

    def many(self, tool: str) -> Request | None:
        """A request for several calls of one tool, where some were written."""
        listed = self.tools[tool].many
        return self._next(f"many {tool}", listed) if listed else None

    def no_tool(self, offered: Collection[str]) -> Dialog | None:
        """A case for no tool whose tools are all offered."""
        fitting = [dialog for dialog in self._short if dialog.tools and set(dialog.tools) <= set(offered)]
        return self.rng.choice(fitting) if fitting else None

    def elsewhere(self, offered: Mapping[str, WrittenTool]) -> WrittenTool | None:
        """A tool that is not offered, of another field than all that are."""
        if _GENERAL & set(offered):
            return None
        fields = {tool.file for tool in offered.values()}
        far = [
            tool
            for tool in self.tools.values()
            if tool.file not in fields and tool.name not in _GENERAL and not tool.is_core
        ]
        return self.rng.choice(far) if far else None

    def _next(self, key: str, items: Sequence[_Item]) -> _Item:
        """The items in shuffled rounds, so that none is used twice before all were used."""
        left: list[_Item] = self._rounds.setdefault(key, [])
        if not left:
            left += items
            self.rng.shuffle(left)
        return left.pop()


def _is_dated(request: Request) -> bool:
    return any(slot.rstrip("0123456789!") in NEED_TODAY for slot in SLOT.findall(request.ask))


def _is_short(dialog: Dialog) -> bool:
    return len(dialog.turns) == 2 and not dialog.system


def _is_no_tool(dialog: Dialog) -> bool:
    return dialog.scenario == "no_tool_needed"
