"""Calls that fail and what is right then: a call corrected after a hint, the same once more, or the failure told."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from demo import phrases
from demo.material import Request, Turn
from demo.messages import Message, arguments_of, calls, result, say, user
from demo.noise import slipped
from demo.slots import Slots
from demo.views import ToolView

_FAILED = re.compile(r"error|invalid|unknown|not found|must be|did you mean|allowed", re.IGNORECASE)
_PLAIN_WORD = re.compile(r"[A-Z]?[a-zé]{4,}")
_LONE_SLOT = re.compile(r"\{[A-Za-z_]\w*\}")


def is_mistake(turns: Sequence[Turn]) -> bool:
    """Of three turns: whether a call fails and is then made otherwise, so that the first is shown and not learned."""
    if [turn.kind for turn in turns] != ["call", "result", "call"]:
        return False
    if not _FAILED.search(" ".join(turns[1].results)):
        return False
    first, again = turns[0].calls, turns[2].calls
    return first != again and {name for name, _ in first} == {name for name, _ in again}


def misspelt(asked: Message, right: Message, view: ToolView, rng: random.Random) -> list[Message] | None:
    """The user slips in a name; the tool suggests the right one. None where no argument is such a name."""
    arguments = arguments_of(right)
    names = [
        name
        for name, value in arguments.items()
        if _is_copied_word(value, asked["content"]) and "enum" not in view.tool.properties.get(name, {})
    ]
    if not names:
        return None
    name = rng.choice(names)
    meant = arguments[name]
    wrong = slipped(meant, rng)
    if wrong == meant:
        return None
    hint = rng.choice(phrases.DID_YOU_MEAN).format(name=name, wrong=wrong, right=meant)
    # What the user wrote was copied faithfully: the first call is right, too, and learned.
    first = calls([(view.name, {**arguments, name: wrong})])
    return [user(asked["content"].replace(meant, wrong)), first, _error(hint, rng), right]


def _is_copied_word(value: object, text: str) -> bool:
    return isinstance(value, str) and bool(_PLAIN_WORD.fullmatch(value)) and value in text


def wrong_form(
    asked: Message, right: Message, request: Request, slots: Slots, view: ToolView, rng: random.Random
) -> list[Message] | None:
    """The first call copied the user's words where a date, a code or one of a few values was wanted. None where the
    arguments are the user's words anyway."""
    arguments = arguments_of(right)
    said = _said(request, slots, view)
    # An argument that this view hides is said and not there.
    shown = {name: words for name, words in said.items() if isinstance(arguments.get(name), str)}
    converted = [name for name, words in shown.items() if arguments[name] != words]
    if not converted:
        return None
    name = rng.choice(converted)
    first = calls([(view.name, {**arguments, name: said[name]})], is_trained=False)
    hint = _form_error(name, said[name], arguments[name], view.written_schema(name), rng)
    return [asked, first, _error(hint, rng), right]


def _said(request: Request, slots: Slots, view: ToolView) -> dict[str, str]:
    """The user's words for each argument that is one slot, by the parameter's shown name."""
    _, templates = request.calls[0]
    return {
        view.shown_name(name): slots.text(template[:-1] + "!}", said=True)
        for name, template in templates.items()
        if isinstance(template, str) and _LONE_SLOT.fullmatch(template)
    }


def _form_error(name: str, wrong: str, right: str, schema: Mapping[str, Any], rng: random.Random) -> str:
    if allowed := schema.get("enum"):
        listed = ", ".join(map(str, allowed))
        return rng.choice(phrases.NOT_ALLOWED).format(name=name, allowed=listed, wrong=wrong)
    if re.fullmatch(r"\d{4}-\d\d-\d\d.*", right):
        form = "YYYY-MM-DD" if len(right) == len("2030-01-31") else "YYYY-MM-DDTHH:MM"
        # Another day as the example: the hint tells the form and not the answer.
        example = "2030-01-31" + right[len("2030-01-31") :]
        return rng.choice(phrases.WRONG_FORM).format(
            name=name, wrong=wrong, form=form, example=form, right=example
        )
    if re.fullmatch(r"\d\d:\d\d", right):
        return f"{name} must be HH:MM (24 h), got '{wrong}'"
    return rng.choice(phrases.DID_YOU_MEAN).format(name=name, wrong=wrong, right=right)


def again(asked: Message, right: Message, rng: random.Random) -> list[Message]:
    """What failed may pass: the same call once more."""
    return [asked, right, _error(rng.choice(phrases.TRANSIENT), rng), right]


def told(asked: Message, right: Message, rng: random.Random) -> list[Message]:
    """Nothing can be done: the failure in words."""
    error = rng.choice(phrases.PERMANENT)
    return [asked, right, _error(error, rng), say(rng.choice(phrases.SORRY).format(error=error))]


def _error(text: str, rng: random.Random) -> Message:
    form = rng.choice(("json", "json", "json", "plain", "status"))
    if form == "plain":
        return result(f"Error: {text}")
    value = {"error": text} if form == "json" else {"status": "error", "message": text}
    return result(json.dumps(value, ensure_ascii=False))
