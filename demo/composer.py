"""Written material to training dialogues, in groups that share one system text and one list of tools.

A group is what training packs together: the shared beginning is computed once. Which tools stand beside each other,
what they and their parameters are called, who says what and what goes wrong is drawn from the seed.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any

from demo import phrases
from demo.branches import Branch, Branches
from demo.held_out import HeldOut
from demo.material import Dialog, Material
from demo.pools import MONTHS, WEEKDAYS
from demo.slots import MaterialError, Slots
from demo.stock import Stock
from demo.views import ToolView

_BRANCHES = 6
_DATED = 4  # requests for days, of each of two tools
_MOST_TOOLS = 8
_EASY = ("single_tool", "multi_tool_parallel")
_STATED_TODAY = re.compile(r"(?:[Tt]oday|[Dd]ate|[Nn]ow|It is)\b[^.]{0,40}?(\d{4}-\d\d-\d\d)")


@dataclass(frozen=True, slots=True)
class Group:
    """Dialogues that share a beginning. tools: OpenAI style. dialogs: {"scenario", "messages"}; an assistant message
    with "train": false is context only."""

    system: str
    tools: list[dict[str, Any]]
    dialogs: list[Branch]

    def to_json(self) -> str:
        shown = {"system": self.system, "tools": self.tools, "dialogs": self.dialogs}
        return json.dumps(shown, ensure_ascii=False)


class Composer:
    """Draws groups. held_out: what the evaluation uses and training must not. settings_share: of the groups,
    where the material has settings. dated_share: of the groups, where all is about days. easy_share: of the
    dialogues that only choose and fill, how many stay. answered_share: of those, how many go on to the result and
    the answer. finished_share: of the others, how many go on behind their last call. dropped: what was left out,
    and why."""

    def __init__(
        self,
        material: Material,
        seed: int,
        held_out: HeldOut,
        *,
        settings_share: float = 0.5,
        dated_share: float = 0.0,
        varies_order: bool = False,
        easy_share: float = 1.0,
        answered_share: float = 1.0,
        finished_share: float = 1.0,
    ) -> None:
        self._rng = random.Random(seed)
        self._stock = Stock(material, self._rng, held_out)
        self._held_out = held_out
        self._settings_share = settings_share
        self._dated_share = dated_share if self._stock.has_dated else 0.0
        self._today_forms = phrases.TODAY_MORE if dated_share else phrases.TODAY
        self._varies_order = varies_order
        self._easy_share = easy_share
        self._answered_share = answered_share
        self._finished_share = finished_share
        self.dropped = Counter[str]()

    def groups(self, n_examples: int) -> Iterator[Group]:
        """Groups until they hold n_examples dialogues; a longer run begins with what a shorter one gives."""
        n_made = 0
        while n_made < n_examples:
            group = self._drawn_group()
            if group is not None:
                n_made += len(group.dialogs)
                yield group

    def _drawn_group(self) -> Group | None:
        if self._dated_share and self._rng.random() < self._dated_share:
            return self._dated_group()
        if self._stock.has_settings and self._rng.random() < self._settings_share:
            return self._setting_group()
        return self._dialog_group() if self._rng.random() < 0.55 else self._tool_group()

    def _tool_group(self) -> Group | None:
        """Dialogues around one to three tools."""
        focus, siblings = self._focus()
        views = self._views(focus, siblings, self._rng.choice((1, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8)))
        today = self._today()
        branches = Branches(self._stock, views, today)
        around = list(dict.fromkeys(focus))
        dialogs = [self._kept(lambda: branches.any(around)) for _ in range(_BRANCHES)]
        return self._group(
            dialogs, views, system=lambda: self._system("", today, needs_today=branches.needs_today)
        )

    def _dated_group(self) -> Group | None:
        """Requests for days under one stated date."""
        first, second = self._stock.dated_tool(), self._stock.dated_tool()
        views = self._views((first, second), self._stock.names_beside(first), self._rng.choice((2, 2, 3, 4)))
        today = self._today()
        branches = Branches(self._stock, views, today)
        dialogs = [
            self._not_held_out(partial(branches.dated, name))
            for name in (first, second)
            for _ in range(_DATED)
        ]
        return self._group(dialogs, views, system=lambda: self._system("", today, needs_today=True))

    def _focus(self) -> tuple[list[str], list[str]]:
        """The tools that a group is about, and those of the same field."""
        rng = self._rng
        is_core = rng.random() < 0.42
        first = self._stock.focus(core=is_core)
        beside = self._stock.names(core=True) if is_core else self._stock.names_beside(first)
        siblings = [name for name in beside if name != first]
        focus = [first]
        for _ in range(rng.choice((0, 1, 1, 2))):
            is_near = bool(siblings) and rng.random() < 0.7
            focus.append(rng.choice(siblings) if is_near else self._stock.focus(core=is_core))
        return focus, siblings

    def _dialog_group(self) -> Group | None:
        """A written dialogue, with other values once more, and others around its tools."""
        dialog = self._stock.dialog()
        near = self._stock.names_beside(dialog.tools[0]) if dialog.tools else []
        views = self._views(dialog.tools, near, self._rng.choice((2, 3, 3, 4, 4, 5, 6)))
        stated = _STATED_TODAY.search(dialog.system)
        today = date.fromisoformat(stated[1]) if stated else self._today()
        branches = Branches(self._stock, views, today)
        slots = Slots(self._rng, today, dialog.values)
        own = slots.text(dialog.system, said=True)
        dialogs = self._around(dialog, branches, slots)
        return self._group(
            dialogs,
            views,
            system=lambda: self._system(own, today, needs_today=branches.needs_today or slots.needs_today),
        )

    def _setting_group(self) -> Group | None:
        """A deployment's conversations, side by side."""
        setting = self._stock.setting()
        # Distractors of other fields only: a near twin of a setting's own tool could also be right.
        views = self._views(setting.tools, [], len(setting.tools) + self._rng.choice((0, 0, 0, 1, 2)))
        today = self._today()
        branches = Branches(self._stock, views, today)
        dialogs = [self._kept(partial(branches.written, dialog)) for dialog in setting.dialogs]
        return self._group(
            dialogs,
            views,
            system=lambda: self._system(
                setting.system, today, needs_today=branches.needs_today or setting.has_date
            ),
        )

    def _around(self, dialog: Dialog, branches: Branches, slots: Slots) -> list[Branch | None]:
        if "{" in dialog.system:  # its values are in the text that all share
            return [self._kept(lambda: branches.written(dialog, slots))]
        n_copies = 3 if dialog.values else 2
        dialogs = [self._kept(lambda: branches.written(dialog)) for _ in range(n_copies)]
        if dialog.tools and not dialog.system:
            dialogs += [self._kept(lambda: branches.any(dialog.tools)) for _ in range(2)]
        return dialogs

    def _kept(self, make: Callable[[], Branch | None]) -> Branch | None:
        made = self._not_held_out(make)
        return self._thinned(made) if made is not None else None

    def _not_held_out(self, make: Callable[[], Branch | None]) -> Branch | None:
        try:
            made = make()
        except MaterialError as exc:
            self.dropped[f"refused: {str(exc)[:60]}"] += 1
            return None
        if made is not None and any(map(self._held_out.has_text, _user_texts(made))):
            self.dropped["like a sentence of the evaluation"] += 1
            return None
        return made

    def _thinned(self, made: Branch) -> Branch | None:
        """There are plenty of answers after a result, and calls there are few."""
        is_easy = made["scenario"] in _EASY
        if is_easy and not self._draws(self._easy_share):
            return None
        goes_on = self._draws(self._answered_share if is_easy else self._finished_share)
        return made if goes_on else {**made, "messages": _up_to_last_call(made["messages"])}

    def _draws(self, share: float) -> bool:
        # Where everything stays nothing is drawn: what follows depends on every draw.
        return share == 1 or self._rng.random() < share

    def _group(
        self, dialogs: Sequence[Branch | None], views: Mapping[str, ToolView], *, system: Callable[[], str]
    ) -> Group | None:
        distinct = list({_user_texts(made): made for made in dialogs if made is not None}.values())
        tools = [view.openai() for view in views.values()]
        if not distinct:
            return None
        if any(map(self._held_out.has_schema, tools)):
            self.dropped["a schema of the evaluation"] += len(distinct)
            return None
        return Group(system(), tools, distinct)

    def _views(self, needed: Sequence[str], near: Sequence[str], most: int) -> dict[str, ToolView]:
        """The needed tools and distractors out of `near` and from everywhere, shuffled; `most` in all, if that does."""
        rng = self._rng
        names = list(dict.fromkeys(needed))
        room = max(0, min(most, _MOST_TOOLS) - len(names))
        near_left = [name for name in near if name not in names]
        rng.shuffle(near_left)
        n_near = min(len(near_left), rng.randint(0, room))
        names += near_left[:n_near]
        others = [name for name in self._stock.tools if name not in names]
        names += rng.sample(others, rng.randint(0, room - n_near))
        rng.shuffle(names)
        return {
            name: ToolView(self._stock.tools[name], rng, varies_order=self._varies_order) for name in names
        }

    def _today(self) -> date:
        return date(2024, 1, 1) + timedelta(days=self._rng.randrange(1500))

    def _system(self, own: str, today: date, *, needs_today: bool) -> str:
        """The dialogue's own text or a persona, perhaps a rule that changes no call, perhaps the date."""
        rng = self._rng
        parts = [own] if own else []
        if not own and rng.random() < 0.65:
            parts.append(rng.choice(phrases.SYSTEMS))
        if rng.random() < 0.25:
            parts.append(rng.choice(phrases.RULES))
        states_today = _STATED_TODAY.search(own)
        if not states_today and (needs_today or rng.random() < 0.3):
            parts.insert(rng.randint(0, len(parts)), self._today_text(today))
        return " ".join(parts)

    def _today_text(self, today: date) -> str:
        return self._rng.choice(self._today_forms).format(
            weekday=WEEKDAYS[today.weekday()],
            iso=today.isoformat(),
            day=today.day,
            month=MONTHS[today.month - 1],
            year=today.year,
        )


def _user_texts(dialog: Branch) -> tuple[str, ...]:
    return tuple(message["content"] for message in dialog["messages"] if message["role"] == "user")


def _up_to_last_call(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the results of the last call and the answer; as it is where more than one answer follows them."""
    calls = [place for place, message in enumerate(messages) if message.get("tool_calls")]
    behind = messages[calls[-1] + 1 :] if calls else messages
    is_answered = [message["role"] for message in behind if message["role"] != "tool"] == ["assistant"]
    return list(messages[: calls[-1] + 1]) if is_answered else list(messages)
