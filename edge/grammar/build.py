"""Turns a JSON Schema into rules: one rule per schema node, property order as the schema has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge.errors import UnsupportedSchema
from edge.grammar.json_text import PLAIN, STANDARD_RULES, TYPE_RULES, dumps, one_of
from edge.grammar.rules import Chars, Grammar, Lit, Ref, Repeat, Rule, alt, normalised, optional, seq
from edge.types import Schema, Tool

_HANDLED = """type properties required additionalProperties items minItems maxItems enum const anyOf oneOf $ref
$defs definitions nullable"""
_ASSERTIONS = """patternProperties propertyNames minProperties maxProperties prefixItems contains minContains
maxContains minLength maxLength pattern format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf allOf
not if then else dependentRequired dependentSchemas dependencies $dynamicRef $recursiveRef uniqueItems
unevaluatedProperties unevaluatedItems additionalItems extends disallow divisibleBy"""
HANDLED, ASSERTIONS = frozenset(_HANDLED.split()), frozenset(_ASSERTIONS.split())
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
MAX_DEPTH = 60
MAX_NODES = 20_000


def build(tool: Tool) -> Grammar:
    """The rules of the tool's whole call text after `<tool_call>`; the root rule is `root`."""
    builder = _Builder(tool)
    arguments = builder.node(tool.parameters, "", 0, only="object")
    root = seq(Lit(f'\n{{"name": {dumps(tool.name)}, "arguments": '), arguments, Lit("}\n</tool_call>"))
    return Grammar({"root": root, **builder.rules}, "root")


class _Builder:
    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self.rules: dict[str, Rule] = dict(STANDARD_RULES)
        self._refs: dict[tuple[str, str | None], Ref] = {}
        self._n_nodes = 0

    def _fail(self, pointer: str, keyword: str, detail: str = "") -> UnsupportedSchema:
        return UnsupportedSchema(self._tool.name, pointer, keyword, detail)

    def _named(self, kind: str, rule: Rule) -> Ref:
        name = f"{kind}-{len(self.rules)}"
        self.rules[name] = rule
        return Ref(name)

    def node(self, schema: object, at: str, depth: int, only: str | None = None) -> Rule:
        """The rule of one schema node; `only` narrows it to one type."""
        self._n_nodes += 1
        if depth > MAX_DEPTH or self._n_nodes > MAX_NODES:
            raise self._fail(at, "schema", f"deeper than {MAX_DEPTH} levels or more than {MAX_NODES} nodes")
        if schema is True:
            return TYPE_RULES[only] if only else Ref("value")
        if not isinstance(schema, Mapping):
            raise self._fail(at, "schema", "no value satisfies false" if schema is False else "not a schema")
        if unknown := sorted(ASSERTIONS & schema.keys()):
            raise self._fail(at, unknown[0])
        if "$ref" in schema:
            return self._ref(schema, at, depth, only)
        if "const" in schema or "enum" in schema:
            return self._values(schema, at, only)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._branches(schema, keyword, at, depth, only)
        types = self._types(schema, at)
        types = [only] if only in types else ([] if only else types)
        if not types:
            raise self._fail(at, "type", f"only {only} is possible here")
        return alt(self._of_type(name, schema, at, depth) for name in types)

    def _types(self, schema: Mapping[str, object], at: str) -> list[str | None]:
        given = schema.get("type")
        if given is None:
            given = ["object"] if "properties" in schema else ["array"] if "items" in schema else list(TYPES)
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list) or not names or any(name not in TYPES for name in names):
            raise self._fail(at, "type", f"{given!r} is not one of {', '.join(TYPES)}")
        if schema.get("nullable") is True and "null" not in names:
            names = [*names, "null"]
        return [name for name in names if not (name == "integer" and "number" in names)]

    def _ref(self, schema: Mapping[str, object], at: str, depth: int, only: str | None) -> Rule:
        target = schema["$ref"]
        if any(key in HANDLED and key not in ("$ref", "$defs", "definitions") for key in schema):
            raise self._fail(at, "$ref", "other constraints beside it")
        if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
            raise self._fail(at, "$ref", f"{target!r} does not point into this schema")
        if (target, only) not in self._refs:
            ref = self._refs[target, only] = self._named("ref", Lit(""))
            rule = self.node(_lookup(self._tool.parameters, target, self, at), target[1:], depth + 1, only)
            if rule == ref:
                raise self._fail(at, "$ref", f"{target} refers to itself")
            self.rules[ref.name] = rule
        return self._refs[target, only]

    def _values(self, schema: Mapping[str, object], at: str, only: str | None) -> Rule:
        keyword = "enum" if "enum" in schema else "const"
        extra = (HANDLED & schema.keys()) - {"enum", "const", "type", "nullable", "$defs", "definitions"}
        if extra:
            raise self._fail(at, sorted(extra)[0], f"beside {keyword}")
        values = schema.get("enum", [schema.get("const")])
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise self._fail(at, keyword, "not a list")
        if "const" in schema:
            values = [value for value in values if dumps(value) == dumps(schema["const"])]
        types = [only] if only else self._types(schema, at) if "type" in schema else list(TYPES)
        allowed = [value for value in values if any(_is_a(value, name) for name in types)]
        if not allowed:
            raise self._fail(at, keyword, "no value is possible")
        return self._named("enum", one_of(map(dumps, allowed)))

    def _branches(
        self, schema: Mapping[str, object], keyword: str, at: str, depth: int, only: str | None
    ) -> Rule:
        extra = (HANDLED & schema.keys()) - {keyword, "type", "nullable", "$defs", "definitions"}
        branches = schema[keyword]
        if extra:
            raise self._fail(at, sorted(extra)[0], f"beside {keyword}")
        if not isinstance(branches, list) or not branches:
            raise self._fail(at, keyword, "not a list of schemas")
        if "type" in schema and only is None:
            names = self._types(schema, at)
            if len(names) != 1:
                raise self._fail(at, "type", f"beside {keyword}")
            only = names[0]
        if keyword == "oneOf" and not _disjoint(branches):
            raise self._fail(at, "oneOf", "the branches are not of different types")
        rules: list[Rule] = []
        for index, branch in enumerate(branches):
            if (
                only
                and isinstance(branch, Mapping)
                and "type" in branch
                and only not in self._types(branch, at)
            ):
                continue
            rules.append(self.node(branch, f"{at}/{keyword}/{index}", depth + 1, only))
        if not rules:
            raise self._fail(at, keyword, "no branch is possible")
        return alt(rules)

    def _of_type(self, name: str | None, schema: Mapping[str, object], at: str, depth: int) -> Rule:
        if name == "object":
            return self._object(schema, at, depth)
        if name == "array":
            return self._array(schema, at, depth)
        assert name is not None
        return TYPE_RULES[name]

    def _array(self, schema: Mapping[str, object], at: str, depth: int) -> Rule:
        low, high = (self._count(schema, keyword, at) for keyword in ("minItems", "maxItems"))
        item = self.node(schema.get("items", True), f"{at}/items", depth + 1)
        item = item if isinstance(item, Ref) else self._named("item", item)
        low = low or 0
        if high is not None and high < low:
            raise self._fail(at, "maxItems", "below minItems")
        if high == 0:
            return Lit("[]")
        more = Repeat(seq(Lit(", "), item), max(low - 1, 0), None if high is None else high - 1)
        body = seq(item, more)
        return self._named("array", seq(Lit("["), body if low else optional(body), Lit("]")))

    def _count(self, schema: Mapping[str, object], keyword: str, at: str) -> int | None:
        value = schema.get(keyword)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2000:
            raise self._fail(at, keyword, f"{value!r} is not a count up to 2000")
        return value

    def _object(self, schema: Mapping[str, object], at: str, depth: int) -> Rule:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, Mapping):
            raise self._fail(at, "properties", "not an object")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise self._fail(at, "required", "not a list of names")
        extra = schema.get("additionalProperties", not properties)
        slots = dict(properties)
        for name in required:
            if name not in slots:
                if extra is False:
                    raise self._fail(at, "required", f"{name!r} is not allowed by additionalProperties")
                slots[name] = extra
        members = []
        for name, sub in slots.items():
            value = self.node(sub, f"{at}/properties/{_escape(name)}", depth + 1)
            members.append((self._named("member", seq(Lit(dumps(name) + ": "), value)), name in required))
        tail: Rule | None = None
        if extra is not False:
            key = _other_key(list(slots)) if slots else Ref("string")
            tail = self._named(
                "extra", seq(key, Lit(": "), self.node(extra, f"{at}/additionalProperties", depth + 1))
            )
        return self._members(members, tail)

    def _members(self, members: list[tuple[Ref, bool]], tail: Rule | None) -> Rule:
        """The object whose members come in this order: one rule per place, so its size is linear."""
        more: Rule = Repeat(seq(Lit(", "), tail), 0, None) if tail else Lit("")
        after = self._named("rest", seq(more, Lit("}")))
        first: Rule = alt((seq(tail, after), Lit("}"))) if tail else Lit("}")
        for member, needed in reversed(members):
            with_it = seq(member, after)
            first = with_it if needed else alt((with_it, self._named("first", first)))
            further = seq(Lit(", "), member)
            after = self._named("rest", seq(further if needed else optional(further), after))
        return self._named("object", seq(Lit("{"), alt((first,))))


def _other_key(names: list[str]) -> Rule:
    """A JSON string, written without needless escapes, that is none of the names."""
    return seq(Lit('"'), _unlike([dumps(name)[1:-1] for name in names]))


def _unlike(words: list[str]) -> Rule:
    any_rest = seq(Repeat(PLAIN, 0, None), Lit('"'))
    starts = {word[0] for word in words if word}
    others = _without(PLAIN, starts)
    options: list[Rule] = [seq(others, any_rest)]
    if "" not in words:
        options.append(Lit('"'))
    options += [
        seq(Lit(start), _unlike([word[1:] for word in words if word.startswith(start)]))
        for start in sorted(starts)
    ]
    return alt(options)


def _without(rule: Chars, points: set[str]) -> Chars:
    ranges = list(rule.ranges)
    for point in map(ord, points):
        ranges = [
            part
            for low, high in ranges
            for part in (((low, point - 1), (point + 1, high)) if low <= point <= high else ((low, high),))
            if part[0] <= part[1]
        ]
    return Chars(normalised(ranges))


def _lookup(root: Schema, target: str, builder: _Builder, at: str) -> object:
    node: object = root
    for step in target.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            raise builder._fail(at, "$ref", f"{target} points nowhere")
    return node


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _is_a(value: object, name: str | None) -> bool:
    match name:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "null":
            return value is None
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, Mapping)


def _disjoint(branches: list[object]) -> bool:
    seen: set[str] = set()
    for branch in branches:
        given = branch.get("type") if isinstance(branch, Mapping) else None
        names = {given} if isinstance(given, str) else set(given) if isinstance(given, list) else set(TYPES)
        if "number" in names:
            names.add("integer")
        if seen & names:
            return False
        seen |= names
    return True
