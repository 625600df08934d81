"""Written material to training dialogues, in groups that share one system text and one list of tools.

    python -m demo.compose --out examples.jsonl [--examples 10000] [--seed 7]

A group is what training packs together: the shared beginning is computed once. Which tools stand beside each other,
what they and their parameters are called, who says what and what goes wrong is drawn from the seed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from demo import phrases
from demo.held_out import HeldOut
from demo.material import (
    Args,
    Dialog,
    Material,
    Request,
    Setting,
    Turn,
    WrittenTool,
    check_call,
    read_material,
)
from demo.noise import disturbed, slipped
from demo.pools import MONTHS, WEEKDAYS, listed_pools
from demo.slots import MaterialError, Slots

DATA = Path(__file__).parent / "data"
CORE_FILES = ("core_tools_",)
# Tools that can stand in for almost any other: beside them "I have no tool for that" would be a wrong lesson.
_GENERAL = frozenset(
    {"web_search", "get_webpage", "http_request", "shell_command", "execute_python", "database_query"}
)
_BRANCHES = 6
_FAILED = re.compile(r"error|invalid|unknown|not found|must be|did you mean|allowed", re.IGNORECASE)
_STATED_TODAY = re.compile(r"(?:[Tt]oday|[Dd]ate|[Nn]ow|It is)\b[^.]{0,40}?(\d{4}-\d\d-\d\d)")
_LANGUAGES = {code: name for name, code in listed_pools()["language"]} | {
    "en": "English",
    "pt-BR": "Brazilian Portuguese",
}
_CODES = {name: code for code, name in _LANGUAGES.items()}
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """Dialogues that share a beginning. tools: OpenAI style. dialogs: {"scenario", "messages"}; an assistant message
    with "train": false is context only."""

    system: str
    tools: list[dict[str, Any]]
    dialogs: list[dict[str, Any]]

    def to_json(self) -> str:
        return json.dumps(
            {"system": self.system, "tools": self.tools, "dialogs": self.dialogs}, ensure_ascii=False
        )


class ToolView:
    """A tool as one group shows it: perhaps under other names, described otherwise, with a parameter more or less."""

    def __init__(self, tool: WrittenTool, rng: random.Random) -> None:
        self.tool = tool
        self.name = _camel(tool.name) if not _is_core(tool) and rng.random() < 0.05 else tool.name
        self._names = _names(tool, rng)
        described = [tool.description, tool.description, *tool.also_described]
        self._description = rng.choice(described)
        self._is_terse = rng.random() < 0.15
        self._hidden = {name for name in tool.sometimes if rng.random() < 0.5}
        is_list = rng.random() < 0.35
        self._listed = set(tool.lists) if is_list else set()
        self._coded = {
            name: rng.choice(forms)["described"] for name, forms in tool.codes.items() if rng.random() < 0.6
        }

    def openai(self) -> dict[str, Any]:
        properties = {}
        for name, schema in self.tool.properties.items():
            if name not in self._hidden:
                properties[self._names[name]] = self._shown_schema(name, schema)
        required = [self._names[name] for name in self.tool.required]
        parameters = {"type": "object", "properties": properties, "required": required}
        function = {"name": self.name, "description": self._description, "parameters": parameters}
        return {"type": "function", "function": function}

    def _shown_schema(self, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        shown = dict(schema)
        if name in self._coded:
            return shown | {"description": self._coded[name]}
        if self._is_terse and name not in self.tool.codes:
            shown.pop("description", None)
        if name not in self._listed:
            return shown
        described = {"description": shown.pop("description")} if "description" in shown else {}
        return {"type": "array", "items": shown} | described

    def call(self, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Name and arguments as this view has them, in the schema's order. Raises MaterialError if it cannot be said."""
        check_call(self.tool, arguments)
        if missing := [k for k in arguments if k in self._hidden and self.tool.sometimes[k] != "drop"]:
            raise MaterialError(f"{self.tool.name}.{missing[0]} is not shown here")
        kept = [k for k in self.tool.properties if k in arguments and k not in self._hidden]
        return self.name, {self._names[k]: self._argument(k, arguments[k]) for k in kept}

    def _argument(self, name: str, value: Any) -> Any:
        if name in self.tool.codes and isinstance(value, str):
            # Half the material names the language, half gives its code.
            value = (_CODES if name in self._coded else _LANGUAGES).get(value, value)
        return [value] if name in self._listed and not isinstance(value, list) else value

    def shown(self, parameter: str) -> str:
        return self._names[parameter]


def _names(tool: WrittenTool, rng: random.Random) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for name in tool.properties:
        others = [
            other
            for other in tool.rename.get(name, ())
            if other not in tool.properties and other not in chosen.values()
        ]
        chosen[name] = rng.choice(others) if others and rng.random() < 0.35 else name
    return chosen


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def _is_core(tool: WrittenTool) -> bool:
    return tool.file.startswith(CORE_FILES)


class Composer:
    """Draws groups from the material. settings_share: of the groups that are deployments. held_out: what the evaluation uses and training must not."""

    def __init__(self, material: Material, seed: int, held_out: HeldOut, settings_share: float = 0.5) -> None:
        self._rng = random.Random(seed)
        self._held_out = held_out
        self._settings_share = settings_share
        self._tools = {name: tool for name, tool in material.tools.items() if not held_out.has_tool(name)}
        usable = [
            d for d in (*material.no_tool, *material.dialogs) if all(name in self._tools for name in d.tools)
        ]
        self._dialogs = [d for d in usable if len(d.turns) > 2 or d.system]
        self._dialogs += [
            d for d in usable if len(d.turns) == 2 and not d.system and d.scenario != "no_tool_needed"
        ]
        self._short = [
            d for d in usable if len(d.turns) == 2 and not d.system and d.scenario == "no_tool_needed"
        ]
        self._settings = [s for s in material.settings if all(name in self._tools for name in s.tools)]
        self._by_file: dict[str, list[str]] = {}
        for tool in self._tools.values():
            self._by_file.setdefault(tool.file, []).append(tool.name)
        self._queues: dict[str, list[Any]] = {}
        self.dropped = Counter[str]()

    def groups(self, n_examples: int) -> Iterator[Group]:
        """Groups until they hold n_examples dialogues."""
        made = 0
        while made < n_examples:
            group = self._drawn_group()
            if group is not None:
                made += len(group.dialogs)
                yield group

    def _drawn_group(self) -> Group | None:
        if self._settings and self._rng.random() < self._settings_share:
            return self._setting_group()
        return self._dialog_group() if self._rng.random() < 0.55 else self._tool_group()

    # --- the frame of a group

    def _next(self, key: str, items: Sequence[Any]) -> Any:
        """The items in shuffled rounds, so that none is used twice before all were used."""
        queue = self._queues.setdefault(key, [])
        if not queue:
            queue += items
            self._rng.shuffle(queue)
        return queue.pop()

    def _today(self) -> date:
        return date(2024, 1, 1) + timedelta(days=self._rng.randrange(1500))

    def _views(self, needed: Sequence[str], near: Sequence[str], most: int) -> dict[str, ToolView]:
        """needed tools and distractors out of `near` and from everywhere, shuffled."""
        rng = self._rng
        names = list(dict.fromkeys(needed))
        room = max(0, min(most, 8) - len(names))
        near_left = [name for name in near if name not in names]
        rng.shuffle(near_left)
        n_near = min(len(near_left), rng.randint(0, room))
        names += near_left[:n_near]
        others = [name for name in self._tools if name not in names]
        names += rng.sample(others, rng.randint(0, room - n_near))
        rng.shuffle(names)
        return {name: ToolView(self._tools[name], rng) for name in names}

    def _system(self, own: str, today: date, needs_today: bool) -> str:
        rng = self._rng
        parts = [own] if own else []
        if not own and rng.random() < 0.65:
            parts.append(rng.choice(phrases.SYSTEMS))
        if rng.random() < 0.25:
            parts.append(rng.choice(phrases.RULES))
        is_dated = _STATED_TODAY.search(own)
        if not is_dated and (needs_today or rng.random() < 0.3):
            parts.insert(rng.randint(0, len(parts)), self._today_text(today))
        return " ".join(parts)

    def _today_text(self, today: date) -> str:
        return self._rng.choice(phrases.TODAY).format(
            weekday=WEEKDAYS[today.weekday()],
            iso=today.isoformat(),
            day=today.day,
            month=MONTHS[today.month - 1],
            year=today.year,
        )

    # --- groups around tools

    def _tool_group(self) -> Group | None:
        rng = self._rng
        is_core = rng.random() < 0.42
        files = [file for file in self._by_file if file.startswith(CORE_FILES) == is_core]
        pool = [name for file in files for name in self._by_file[file]]
        focus = [self._next(f"focus{is_core}", pool)]
        siblings = [
            n for n in (pool if is_core else self._by_file[self._tools[focus[0]].file]) if n not in focus
        ]
        for _ in range(rng.choice((0, 1, 1, 2))):
            focus.append(
                rng.choice(siblings)
                if siblings and rng.random() < 0.7
                else self._next(f"focus{is_core}", pool)
            )
        views = self._views(focus, siblings, rng.choice((1, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8)))
        today = self._today()
        branch = _Branches(self, views, today)
        dialogs = []
        for _ in range(_BRANCHES):
            made = self._try(branch.any, list(dict.fromkeys(focus)))
            if made is not None:
                dialogs.append(made)
        return self._group("", today, branch.needs_today, views, dialogs)

    def _dialog_group(self) -> Group | None:
        rng = self._rng
        dialog: Dialog = self._next("dialogs", self._dialogs)
        while dialog.scenario == "single_tool" and rng.random() < 0.6:
            dialog = self._next("dialogs", self._dialogs)  # there are many of these, and they teach less
        near = self._by_file.get(self._tools[dialog.tools[0]].file, []) if dialog.tools else []
        views = self._views(dialog.tools, near, rng.choice((2, 3, 3, 4, 4, 5, 6)))
        stated = _STATED_TODAY.search(dialog.system)
        today = date.fromisoformat(stated[1]) if stated else self._today()
        branch = _Branches(self, views, today)
        system_slots = Slots(rng, today, dialog.values)
        system = system_slots.text(dialog.system, said=True) if dialog.system else ""
        copies = 3 if dialog.values else 2
        shared = system_slots if dialog.system and "{" in dialog.system else None
        dialogs = [self._try(branch.written, dialog, shared) for _ in range(1 if shared else copies)]
        if not dialog.system:
            dialogs += [self._try(branch.any, list(dialog.tools)) for _ in range(2)]
        kept = [made for made in dialogs if made is not None]
        return self._group(system, today, branch.needs_today or system_slots.needs_today, views, kept)

    def _setting_group(self) -> Group | None:
        """A deployment's conversations, side by side."""
        rng = self._rng
        setting: Setting = self._next("settings", self._settings)
        # Distractors of other fields only: a near twin of a setting's own tool could also be right.
        views = self._views(setting.tools, [], len(setting.tools) + rng.choice((0, 0, 0, 1, 2)))
        today = self._today()
        branch = _Branches(self, views, today)
        dialogs = [self._try(branch.written, dialog) for dialog in setting.dialogs]
        kept = [made for made in dialogs if made is not None]
        return self._group(setting.system, today, branch.needs_today or setting.has_date, views, kept)

    def _try(self, make: Any, *args: Any) -> dict[str, Any] | None:
        try:
            made: dict[str, Any] | None = make(*args)
        except MaterialError as exc:
            self.dropped[f"refused: {str(exc)[:60]}"] += 1
            return None
        if made is None:
            return None
        if any(m["role"] == "user" and self._held_out.has_text(m["content"]) for m in made["messages"]):
            self.dropped["like a sentence of the evaluation"] += 1
            return None
        return made

    def _group(
        self,
        own: str,
        today: date,
        needs_today: bool,
        views: Mapping[str, ToolView],
        dialogs: list[dict[str, Any]],
    ) -> Group | None:
        distinct = list({_said_by_user(d): d for d in dialogs}.values())
        tools = [view.openai() for view in views.values()]
        if not distinct:
            return None
        if any(self._held_out.has_schema(tool) for tool in tools):
            self.dropped["a schema of the evaluation"] += len(distinct)
            return None
        return Group(self._system(own, today, needs_today), tools, distinct)

    # --- what the branches draw from

    def request_for(self, tool: str) -> Request:
        found: Request = self._next(f"requests {tool}", self._tools[tool].requests)
        return found

    def many_for(self, tool: str) -> Request | None:
        listed = self._tools[tool].many
        return self._next(f"many {tool}", listed) if listed else None

    def no_tool_for(self, names: Sequence[str]) -> Dialog | None:
        """A case for no tool whose tools are all offered."""
        fitting = [d for d in self._short if d.tools and set(d.tools) <= set(names)]
        return self._rng.choice(fitting) if fitting else None

    def elsewhere(self, views: Mapping[str, ToolView]) -> WrittenTool | None:
        """A tool that is not offered, of another field than all that are."""
        files = {view.tool.file for view in views.values()}
        if _GENERAL & set(views):
            return None
        far = [
            t
            for t in self._tools.values()
            if t.file not in files and t.name not in _GENERAL and not _is_core(t)
        ]
        return self._rng.choice(far) if far else None

    @property
    def rng(self) -> random.Random:
        return self._rng


class _Branches:
    """Dialogues over one group's tools."""

    def __init__(self, composer: Composer, views: Mapping[str, ToolView], today: date) -> None:
        self._composer = composer
        self._rng = composer.rng
        self._views = views
        self._today = today
        self.needs_today = False

    def any(self, focus: Sequence[str]) -> dict[str, Any] | None:
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

    def written(self, dialog: Dialog, slots: Slots | None = None) -> dict[str, Any]:
        """slots: those of the system text, where that has some."""
        slots = slots or Slots(self._rng, self._today, dialog.values)
        messages: list[Message] = []
        for number, turn in enumerate(dialog.turns):
            self._add_turn(messages, turn, slots)
            if _is_mistake(dialog.turns[number : number + 3]):
                messages[-1]["train"] = False
        self._noted(slots)
        return {"scenario": dialog.scenario, "messages": messages}

    def _noted(self, slots: Slots) -> None:
        self.needs_today |= slots.needs_today

    def _slots(self, tool: WrittenTool) -> Slots:
        return Slots(self._rng, self._today, tool.values)

    def _add_turn(self, messages: list[Message], turn: Turn, slots: Slots) -> None:
        if turn.kind == "user":
            messages.append(_user(slots.text(turn.text, said=True)))
        elif turn.kind == "say":
            messages.append(_say(slots.text(turn.text, said=False)))
        elif turn.kind == "call":
            messages.append(self._called(turn.calls, slots))
        else:
            messages += [_result(slots.text(text, said=False)) for text in turn.results]

    def _called(self, calls: Sequence[tuple[str, Args]], slots: Slots) -> Message:
        return _calls([self._views[name].call(_filled(args, slots)) for name, args in calls])

    def _asked(self, request: Request, slots: Slots) -> tuple[Message, Message]:
        literals = [text for _, args in request.calls for text in _literals(args)]
        ask = disturbed(request.ask, literals, self._rng)
        return _user(slots.text(ask, said=True)), self._called(request.calls, slots)

    def _single(self, name: str) -> dict[str, Any]:
        request = self._composer.request_for(name)
        tool = self._views[name].tool
        slots = self._slots(tool)
        messages = list(self._asked(request, slots))
        self._noted(slots)
        if tool.result is not None and self._rng.random() < 0.35:
            self._continue(messages, tool, slots)
        return {"scenario": "single_tool", "messages": messages}

    def _continue(self, messages: list[Message], tool: WrittenTool, slots: Slots) -> None:
        messages.append(_result(slots.text(tool.result or "", said=False)))
        messages.append(_say(slots.text(tool.say or "Done.", said=False)))
        draw = self._rng.random()
        if draw < 0.15:
            thanks, reply = self._rng.choice(phrases.THANKS)
            messages += [_user(thanks), _say(reply)]
        elif draw < 0.45:
            other = self._rng.choice(list(self._views))
            again = self._slots(self._views[other].tool)
            messages += self._asked(self._composer.request_for(other), again)
            self._noted(again)

    def _many(self, name: str) -> dict[str, Any] | None:
        request = self._composer.many_for(name)
        if request is None:
            return self._single(name)
        tool = self._views[name].tool
        slots = self._slots(tool)
        messages = list(self._asked(request, slots))
        self._noted(slots)
        return {"scenario": "multi_tool_parallel", "messages": messages}

    def _joined(self, focus: Sequence[str]) -> dict[str, Any] | None:
        """Two or three requests in one message."""
        rng = self._rng
        names = list(focus) if len(focus) > 1 else list(self._views)
        chosen = rng.sample(names, min(len(names), rng.choice((2, 2, 2, 3))))
        if len(chosen) < 2:
            return self._single(chosen[0])
        texts, calls = [], []
        for name in chosen:
            request = self._composer.request_for(name)
            slots = self._slots(self._views[name].tool)
            texts.append(slots.text(request.ask, said=True))
            calls += [self._views[tool].call(_filled(args, slots)) for tool, args in request.calls]
            self._noted(slots)
        text = texts[0]
        for further in texts[1:]:
            text = _joined_text(text, further, rng)
        return {"scenario": "multi_tool_parallel", "messages": [_user(text), _calls(calls)]}

    def _no_tool(self) -> dict[str, Any] | None:
        dialog = self._composer.no_tool_for(list(self._views))
        return self.written(dialog) if dialog else None

    def _unservable(self) -> dict[str, Any] | None:
        tool = self._composer.elsewhere(self._views)
        if tool is None:
            return self._no_tool()
        slots = self._slots(tool)
        ask = slots.text(self._composer.request_for(tool.name).ask, said=True)
        self._noted(slots)
        can = self._rng.choice(list(self._views.values())).openai()["function"]["description"]
        say = self._rng.choice(phrases.CANNOT).format(can=can[:1].lower() + can[1:])
        return {"scenario": "no_tool_needed", "messages": [_user(ask), _say(say)]}

    def _recovery(self, name: str) -> dict[str, Any]:
        """A single request whose first call fails."""
        rng = self._rng
        request = self._composer.request_for(name)
        view = self._views[name]
        slots = self._slots(view.tool)
        user, right = self._asked(request, slots)
        self._noted(slots)
        draw = rng.random()
        made = None
        if draw < 0.35:
            made = self._misspelt(user, right, view)
        elif draw < 0.6:
            made = self._wrong_form(user, right, request, slots, view)
        if made is None:
            made = self._failing(user, right, is_transient=draw > 0.8)
        return {"scenario": "error_recovery", "messages": made}

    def _misspelt(self, user: Message, right: Message, view: ToolView) -> list[Message] | None:
        """The user slips in a name; the tool suggests the right one."""
        arguments = right["tool_calls"][0]["function"]["arguments"]
        names = [
            key for key, value in arguments.items()
            if isinstance(value, str) and re.fullmatch(r"[A-Z]?[a-zé]{4,}", value) and value in user["content"]
            and "enum" not in view.tool.properties.get(key, {})
        ]  # fmt: skip
        if not names:
            return None
        key = self._rng.choice(names)
        wrong = slipped(arguments[key], self._rng)
        if wrong == arguments[key]:
            return None
        error = self._rng.choice(phrases.DID_YOU_MEAN).format(name=key, wrong=wrong, right=arguments[key])
        first = _calls([(view.name, {**arguments, key: wrong})])
        return [_user(user["content"].replace(arguments[key], wrong)), first, self._error(error), right]

    def _wrong_form(
        self, user: Message, right: Message, request: Request, slots: Slots, view: ToolView
    ) -> list[Message] | None:
        """The first call copied the user's words where a date, a code or one of a few values was wanted."""
        arguments = right["tool_calls"][0]["function"]["arguments"]
        said = {
            view.shown(key): slots.text(value[:-1] + "!}", said=True)
            for key, value in request.calls[0][1].items()
            if isinstance(value, str) and re.fullmatch(r"\{[A-Za-z_]\w*\}", value)
        }
        keys = [
            key
            for key, words in said.items()
            if isinstance(arguments.get(key), str) and arguments[key] != words
        ]
        if not keys:
            return None
        key = self._rng.choice(keys)
        schema = next(s for name, s in view.tool.properties.items() if view.shown(name) == key)
        first = _calls([(view.name, {**arguments, key: said[key]})], is_trained=False)
        return [user, first, self._error(self._form_error(key, said[key], arguments[key], schema)), right]

    def _form_error(self, key: str, wrong: str, right: str, schema: Mapping[str, Any]) -> str:
        rng = self._rng
        if allowed := schema.get("enum"):
            return rng.choice(phrases.NOT_ALLOWED).format(
                name=key, allowed=", ".join(map(str, allowed)), wrong=wrong
            )
        if re.fullmatch(r"\d{4}-\d\d-\d\d.*", right):
            form = "YYYY-MM-DD" if len(right) == 10 else "YYYY-MM-DDTHH:MM"
            return rng.choice(phrases.WRONG_FORM).format(
                name=key, wrong=wrong, form=form, example=form, right="2030-01-31" + right[10:]
            )
        if re.fullmatch(r"\d\d:\d\d", right):
            return f"{key} must be HH:MM (24 h), got '{wrong}'"
        return rng.choice(phrases.DID_YOU_MEAN).format(name=key, wrong=wrong, right=right)

    def _failing(self, user: Message, right: Message, *, is_transient: bool) -> list[Message]:
        if is_transient:
            return [user, right, self._error(self._rng.choice(phrases.TRANSIENT)), right]
        error = self._rng.choice(phrases.PERMANENT)
        return [user, right, self._error(error), _say(self._rng.choice(phrases.SORRY).format(error=error))]

    def _error(self, text: str) -> Message:
        form = self._rng.choice(("json", "json", "json", "plain", "status"))
        if form == "plain":
            return _result(f"Error: {text}")
        value = {"error": text} if form == "json" else {"status": "error", "message": text}
        return _result(json.dumps(value, ensure_ascii=False))


def _is_mistake(turns: Sequence[Turn]) -> bool:
    """A call that fails and is then made otherwise: shown, not learned."""
    if [turn.kind for turn in turns] != ["call", "result", "call"] or not _FAILED.search(
        " ".join(turns[1].results)
    ):
        return False
    first, again = turns[0].calls, turns[2].calls
    return first != again and {name for name, _ in first} == {name for name, _ in again}


def _filled(args: Args, slots: Slots) -> dict[str, Any]:
    filled = slots.argument(args)
    assert isinstance(filled, dict)
    return filled


def _literals(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield re.sub(r"\{[^{}]+\}", "", value).strip()
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _literals(entry)
    elif isinstance(value, Sequence):
        for entry in value:
            yield from _literals(entry)


def _joined_text(a: str, b: str, rng: random.Random) -> str:
    end = a if a[-1:] in ".?!" else a + "."
    lower = b[:1].lower() + b[1:] if b[1:2].islower() else b
    return rng.choice(phrases.JOINS).format(a=end, b=lower, B=b)


def _said_by_user(dialog: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(m["content"] for m in dialog["messages"] if m["role"] == "user")


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _say(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _result(text: str) -> Message:
    return {"role": "tool", "content": text}


def _calls(calls: Sequence[tuple[str, dict[str, Any]]], *, is_trained: bool = True) -> Message:
    listed = [{"type": "function", "function": {"name": name, "arguments": args}} for name, args in calls]
    message: Message = {"role": "assistant", "content": "", "tool_calls": listed}
    return message if is_trained else {**message, "train": False}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--without", metavar="GLOB", default="", help="leave these files of material out, e.g. 'settings_*'"
    )
    parser.add_argument(
        "--settings-share", type=float, default=0.5, help="of the groups that are deployments"
    )
    args = parser.parse_args()
    try:
        composer = Composer(
            read_material(DATA, without=args.without), args.seed, HeldOut.read(), args.settings_share
        )
    except MaterialError as exc:
        print(exc, file=sys.stderr)
        return 1
    counts = Counter[str]()
    with args.out.open("w", encoding="utf-8") as out:
        for group in composer.groups(args.examples):
            counts.update(dialog["scenario"] for dialog in group.dialogs)
            out.write(group.to_json() + "\n")
    for name, number in sorted(counts.items()):
        print(f"{name:>24} {number:>6}")
    for name, number in composer.dropped.most_common(8):
        print(f"dropped, {name}: {number}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
