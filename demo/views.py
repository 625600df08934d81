"""A tool as one group of dialogues shows it: perhaps under other names, described otherwise, with a parameter less.

So that the model learns to read a schema rather than to remember it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

from demo.material import WrittenTool
from demo.pools import listed_pools
from demo.slots import MaterialError

_LANGUAGES: dict[object, object] = {
    **{code: name for name, code in listed_pools()["language"]},
    "en": "English",
    "pt-BR": "Brazilian Portuguese",
}
# Parameters that no request asks for: what is optional is left out unless somebody wants it.
_IDLE: dict[str, dict[str, Any]] = {
    "verbose": {"type": "boolean", "description": "Default: false"},
    "dry_run": {"type": "boolean", "description": "Only show what would happen. Default: false"},
    "timeout_s": {"type": "integer", "description": "Default: 30"},
    "request_id": {"type": "string"},
    "encoding": {"type": "string", "description": "Default: utf-8"},
    "notify": {"type": "boolean"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "comment": {"type": "string", "description": "Internal remark"},
    "format": {"type": "string", "enum": ["json", "text"]},
}
_CODES = {name: code for code, name in _LANGUAGES.items()}


class ToolView:
    """One drawing of a tool's names, description and parameters.

    varies_order: the parameters may stand in another order than they were written in, and among ones that nobody uses.
    """

    def __init__(self, tool: WrittenTool, rng: random.Random, *, varies_order: bool = False) -> None:
        self.tool = tool
        self.name = _camel_case(tool.name) if not tool.is_core and rng.random() < 0.05 else tool.name
        self._names = _drawn_names(tool, rng)
        self.description = rng.choice([tool.description, tool.description, *tool.also_described])
        self._is_terse = rng.random() < 0.15
        self._hidden = {name for name in tool.sometimes if rng.random() < 0.5}
        takes_lists = rng.random() < 0.35
        self._listed = set(tool.lists) if takes_lists else set()
        self._coded = {
            name: rng.choice(forms)["described"] for name, forms in tool.codes.items() if rng.random() < 0.6
        }

        self._order = list(tool.properties)
        self._idle: dict[str, dict[str, Any]] = {}
        if varies_order:
            self._vary_order(rng)

    def openai(self) -> dict[str, Any]:
        """As a request lists it."""
        properties: dict[str, dict[str, Any]] = {}
        for name in self._order:
            if name in self._idle:
                properties[name] = self._idle[name]
            elif name not in self._hidden:
                properties[self._names[name]] = self._shown_schema(name, self.tool.properties[name])
        required = [self._names[name] for name in self.tool.required]
        parameters = {"type": "object", "properties": properties, "required": required}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    def call(self, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Name and arguments as this view has them, in the schema's order.

        Raises MaterialError if they cannot be said.
        """
        self.tool.check(arguments)
        for name in arguments:
            if name in self._hidden and self.tool.sometimes[name] != "drop":
                raise MaterialError(f"{self.tool.name}.{name} is not shown here")
        kept = [name for name in self._order if name in arguments and name not in self._hidden]
        return self.name, {self._names[name]: self._argument(name, arguments[name]) for name in kept}

    def shows(self, parameters: Iterable[str]) -> bool:
        return self._hidden.isdisjoint(parameters)

    def shown_name(self, parameter: str) -> str:
        return self._names[parameter]

    def written_schema(self, shown_name: str) -> Mapping[str, Any]:
        """The schema, as written, of the parameter that is shown under this name."""
        return next(
            schema for name, schema in self.tool.properties.items() if self._names[name] == shown_name
        )

    def _vary_order(self, rng: random.Random) -> None:
        if rng.random() < 0.6:
            rng.shuffle(self._order)
        if rng.random() < 0.3:
            free = [name for name in _IDLE if name not in self._names.values()]
            self._idle = {name: _IDLE[name] for name in rng.sample(free, rng.choice((1, 1, 2)))}
            for name in self._idle:
                self._order.insert(rng.randint(0, len(self._order)), name)

    def _shown_schema(self, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        shown = dict(schema)
        if name in self._coded:
            return {**shown, "description": self._coded[name]}
        if self._is_terse and name not in self.tool.codes:
            shown.pop("description", None)
        if name not in self._listed:
            return shown
        described = {"description": shown.pop("description")} if "description" in shown else {}
        return {"type": "array", "items": shown, **described}

    def _argument(self, name: str, value: object) -> object:
        if name in self.tool.codes and isinstance(value, str):
            # Half the material names the language, half gives its code.
            value = (_CODES if name in self._coded else _LANGUAGES).get(value, value)
        return [value] if name in self._listed and not isinstance(value, list) else value


def _drawn_names(tool: WrittenTool, rng: random.Random) -> dict[str, str]:
    """Each parameter's name or, one time in three, another one for it."""
    chosen: dict[str, str] = {}
    for name in tool.properties:
        taken = {*tool.properties, *chosen.values()}
        others = [other for other in tool.rename.get(name, ()) if other not in taken]
        chosen[name] = rng.choice(others) if others and rng.random() < 0.35 else name
    return chosen


def _camel_case(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)
