"""A tool as what is searched: its terms by field, weighted, and as one text for an embedding model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from edge.tools.retrieval.catalogue import CatalogueTool
from edge.tools.retrieval.text import terms

_MAX_DEPTH = 8  # of nested parameters
_MAX_VALUES = 50  # of one enum: a list of all currencies would drown the rest
MAX_FIELD_CHARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldWeights:
    """How often a term of each field is counted. How they were chosen is in docs/retrieval.md."""

    name: int = 4
    description: int = 2
    parameter_names: int = 2
    parameter_descriptions: int = 1
    values: int = 1
    group: int = 2
    group_description: int = 1


def field_texts(entry: CatalogueTool) -> dict[str, str]:
    """The text of each field, by the field's name in `FieldWeights`."""
    names: list[str] = []
    descriptions: list[str] = []
    values: list[str] = []
    for name, schema in _parameters(entry.tool.parameters, _MAX_DEPTH):
        names.append(name)
        if isinstance(schema.get("description"), str):
            descriptions.append(str(schema["description"]))
        values += _values(schema)
    texts = {
        "name": entry.tool.name,
        "description": entry.tool.description,
        "parameter_names": " ".join(names),
        "parameter_descriptions": "\n".join(descriptions),
        "values": " ".join(values),
        "group": entry.group,
        "group_description": entry.group_description,
    }
    return {field: text[:MAX_FIELD_CHARS] for field, text in texts.items()}


def document_terms(entry: CatalogueTool, weights: FieldWeights) -> list[str]:
    """All terms of a tool, each as often as its field weighs: BM25 then counts it so."""
    texts = field_texts(entry)
    found: list[str] = []
    for field in fields(weights):
        found += terms(texts[field.name]) * getattr(weights, field.name)
    return found


def embedding_text(entry: CatalogueTool) -> str:
    """What an embedding model is given of a tool, the telling things first: models cut at a few hundred tokens."""
    texts = field_texts(entry)
    head = f"{texts['name'].replace('_', ' ')}: {texts['description']}"
    return "\n".join(part for part in (head, texts["parameter_names"], texts["group"]) if part)


def _parameters(schema: object, depth: int) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Names and schemas of all parameters, nested ones behind the one that holds them."""
    if not isinstance(schema, Mapping) or depth == 0:
        return
    properties = schema.get("properties")
    for name, child in properties.items() if isinstance(properties, Mapping) else ():
        if isinstance(child, Mapping):
            yield str(name), child
            yield from _parameters(child, depth - 1)
    yield from _parameters(schema.get("items"), depth - 1)
    for key in ("anyOf", "oneOf", "allOf"):
        alternatives = schema.get(key)
        for child in alternatives if isinstance(alternatives, list) else ():
            yield from _parameters(child, depth - 1)


def _values(schema: Mapping[str, object]) -> list[str]:
    items = schema.get("items")
    listed = schema.get("enum", items.get("enum") if isinstance(items, Mapping) else None)
    return [str(value) for value in listed[:_MAX_VALUES]] if isinstance(listed, list) else []
