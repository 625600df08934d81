"""Dialogues over one group's tools: a request, several at once, nothing to call, a failure, or one that was written."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from demo import phrases
from demo.failures import again, is_mistake, misspelt, told, wrong_form
from demo.material import Args, Dialog, Request, Turn, WrittenTool
from demo.messages import Message, calls, result, say, user
from demo.noise import disturbed
from demo.slots import MaterialError, Slots
from demo.stock import Stock
from demo.views import ToolView

Branch = dict[str, Any]  # {"scenario": ..., "messages": [...]}
_RELATIVE = re.compile(r"\b(tomorrow|yesterday|ago|in (a|two|\d+) (day|week)s?|[A-Z]\w+day)\b")
_TRIES_RELATIVE = 4  # else two of three days are said by their date, which is only copied
_OPEN_SLOT = re.compile(r"\{[^{}]+\}")


class Branches:
    """Makes dialogues. needs_today: one of those made so far can only be understood by who knows the date."""

    def __init__(self, stock: Stock, views: Mapping[str, ToolView], today: date) -> None:
        self._stock = stock
        self._rng = stock.rng
        self._views = views
        self._today = today
        self.needs_today = False

    def any(self, focus: Sequence[str]) -> Branch | None:
        """Of any kind; None where the material has none for these tools. Raises MaterialError, as all here do, for
        a call that the tools as shown cannot say."""
        draw = self._rng.random()
        if draw < 0.46:
            return self._single(self._rng.choice(focus))
        if draw < 0.59:
            return self._many(self._rng.choice(focus))
        if draw < 0.70:
            return self._joined(focus)
        if draw < 0.85:
            return self._no_tool()
        if draw < 0.91:
            return self._unservable()
        return self._recovery(self._rng.choice(focus))

    def dated(self, name: str) -> Branch | None:
        """A request that names a day; None where the tool as shown does not take all that it asks for."""
        request = self._stock.dated_request(name)
        if not all(self._views[called].shows(args) for called, args in request.calls):
            return None
        for _ in range(_TRIES_RELATIVE):
            messages = self._asked(request, self._slots(self._views[name].tool.values))
            if _RELATIVE.search(messages[0]["content"]):
                break
        return _branch("single_tool", messages)

    def written(self, dialog: Dialog, slots: Slots | None = None) -> Branch:
        """slots: those of the system text, where that has some."""
        slots = slots or self._slots(dialog.values)
        messages: list[Message] = []
        for number, turn in enumerate(dialog.turns):
            messages += self._turn(turn, slots, is_trained=not is_mistake(dialog.turns[number : number + 3]))
        self._note(slots)
        return _branch(dialog.scenario, messages)

    def _turn(self, turn: Turn, slots: Slots, *, is_trained: bool) -> list[Message]:
        if turn.kind == "user":
            return [user(slots.text(turn.text, said=True))]
        if turn.kind == "say":
            return [say(slots.text(turn.text, said=False))]
        if turn.kind == "call":
            return [calls(self._filled(turn.calls, slots), is_trained=is_trained)]
        return [result(slots.text(text, said=False)) for text in turn.results]

    def _single(self, name: str) -> Branch:
        request = self._stock.request(name)
        tool = self._views[name].tool
        slots = self._slots(tool.values)
        messages = self._asked(request, slots)
        if tool.result is not None and self._rng.random() < 0.35:
            messages += self._continued(tool, slots)
        return _branch("single_tool", messages)

    def _continued(self, tool: WrittenTool, slots: Slots) -> list[Message]:
        messages = [
            result(slots.text(tool.result or "", said=False)),
            say(slots.text(tool.say or "Done.", said=False)),
        ]
        draw = self._rng.random()
        if draw < 0.15:
            thanks, reply = self._rng.choice(phrases.THANKS)
            messages += [user(thanks), say(reply)]
        elif draw < 0.45:
            other = self._rng.choice(list(self._views))
            further = self._slots(self._views[other].tool.values)
            messages += self._asked(self._stock.request(other), further)
        return messages

    def _many(self, name: str) -> Branch:
        request = self._stock.many(name)
        if request is None:
            return self._single(name)
        return _branch(
            "multi_tool_parallel", self._asked(request, self._slots(self._views[name].tool.values))
        )

    def _joined(self, focus: Sequence[str]) -> Branch:
        """Two or three requests in one message."""
        names = list(focus) if len(focus) > 1 else list(self._views)
        chosen = self._rng.sample(names, min(len(names), self._rng.choice((2, 2, 2, 3))))
        if len(chosen) < 2:
            return self._single(chosen[0])
        texts, made = [], []
        for name in chosen:
            request = self._stock.request(name)
            slots = self._slots(self._views[name].tool.values)
            texts.append(slots.text(request.ask, said=True))
            made += self._filled(request.calls, slots)
            self._note(slots)
        text = texts[0]
        for further in texts[1:]:
            text = _joined_text(text, further, self._rng)
        return _branch("multi_tool_parallel", [user(text), calls(made)])

    def _no_tool(self) -> Branch | None:
        dialog = self._stock.no_tool(self._views)
        return self.written(dialog) if dialog else None

    def _unservable(self) -> Branch | None:
        """What only a tool could do that is not here."""
        tool = self._stock.elsewhere({name: view.tool for name, view in self._views.items()})
        if tool is None:
            return self._no_tool()
        slots = self._slots(tool.values)
        asked = slots.text(self._stock.request(tool.name).ask, said=True)
        self._note(slots)
        can = self._rng.choice(list(self._views.values())).description
        refusal = self._rng.choice(phrases.CANNOT).format(can=can[:1].lower() + can[1:])
        return _branch("no_tool_needed", [user(asked), say(refusal)])

    def _recovery(self, name: str) -> Branch:
        """A request whose first call fails."""
        request, view, rng = self._stock.request(name), self._views[name], self._rng
        slots = self._slots(view.tool.values)
        asked, right = self._asked(request, slots)
        draw = rng.random()
        made = None
        if draw < 0.35:
            made = misspelt(asked, right, view, rng)
        elif draw < 0.6:
            made = wrong_form(asked, right, request, slots, view, rng)
        if made is None:
            made = again(asked, right, rng) if draw > 0.8 else told(asked, right, rng)
        return _branch("error_recovery", made)

    def _slots(self, values: Mapping[str, Any]) -> Slots:
        return Slots(self._rng, self._today, values)

    def _note(self, slots: Slots) -> None:
        self.needs_today |= slots.needs_today

    def _filled(self, written: Sequence[tuple[str, Args]], slots: Slots) -> list[tuple[str, dict[str, Any]]]:
        return [self._views[name].call(_filled(args, slots)) for name, args in written]

    def _asked(self, request: Request, slots: Slots) -> list[Message]:
        """The user's sentence, perhaps disturbed, and the calls that are right."""
        copied = [text for _, args in request.calls for text in _literals(args)]
        asked = user(slots.text(disturbed(request.ask, copied, self._rng), said=True))
        right = calls(self._filled(request.calls, slots))
        self._note(slots)
        return [asked, right]


def _branch(scenario: str, messages: Sequence[Message]) -> Branch:
    return {"scenario": scenario, "messages": list(messages)}


def _filled(args: Args, slots: Slots) -> dict[str, Any]:
    filled = slots.argument(args)
    if not isinstance(filled, dict):
        raise MaterialError(f"arguments must be an object, not {filled!r}")
    return filled


def _literals(template: object) -> Iterator[str]:
    """The texts in an argument's template, without its slots."""
    if isinstance(template, str):
        yield _OPEN_SLOT.sub("", template).strip()
    elif isinstance(template, Mapping):
        for entry in template.values():
            yield from _literals(entry)
    elif isinstance(template, Sequence):
        for entry in template:
            yield from _literals(entry)


def _joined_text(first: str, second: str, rng: random.Random) -> str:
    ended = first if first[-1:] in ".?!" else first + "."
    # A word in capitals, or a name of one letter, keeps them.
    lower = second[:1].lower() + second[1:] if second[1:2].islower() else second
    return rng.choice(phrases.JOINS).format(a=ended, b=lower, B=second)
