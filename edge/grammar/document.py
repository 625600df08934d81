"""A schema document: its nodes by JSON pointer, its draft, and where a `$ref` leads. Remote documents are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urldefrag, urljoin

from edge.errors import UnsupportedSchema
from edge.types import Tool

MAX_NODES = 50_000  # objects and lists in one schema
MAX_DEPTH = 100

# The drafts that ignore what stands beside `$ref`.
_LEGACY = ("draft-03", "draft-04", "draft-06", "draft-07")
FALSE_POINTER = "#false"  # the schema `false`, for demands that no node of the document makes


class Document:
    """The tool's schema. Nodes are named by their pointer from the root, "" being the root."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self._nodes: dict[str, object] = {"": tool.parameters, FALSE_POINTER: False}
        self._ids: dict[str, str] = {}  # absolute URI -> pointer
        self._bases: dict[str, str] = {}  # pointer of a node with an id -> that id, absolute
        declared = tool.parameters.get("$schema") if isinstance(tool.parameters, Mapping) else None
        self.dialect = (
            declared if isinstance(declared, str) else "https://json-schema.org/draft/2020-12/schema"
        )
        self.ignores_ref_siblings = any(name in self.dialect for name in _LEGACY)
        self._index()

    def fail(self, pointer: str, keyword: str, detail: str = "") -> UnsupportedSchema:
        """The error for a keyword of the node at the pointer."""
        return UnsupportedSchema(self.tool.name, pointer, keyword, detail)

    def node(self, pointer: str) -> object:
        """The schema at the pointer, which must come from `child` or `target`."""
        return self._nodes[pointer]

    def child(self, pointer: str, *steps: str | int) -> str:
        """The pointer of a node below; the node becomes known."""
        value = self._nodes[pointer]
        for step in steps:
            pointer = f"{pointer}/{escaped(str(step))}"
            value = value[step]  # type: ignore[index]
        self._nodes[pointer] = value
        return pointer

    def target(self, pointer: str, reference: object) -> str:
        """The pointer of the node that `$ref` at the pointer names."""
        if not isinstance(reference, str):
            raise self.fail(pointer, "$ref", "a string is needed")
        base = self._base(pointer)
        url, fragment = urldefrag(urljoin(self._bases.get(base, ""), reference))
        roots = [base, ""] if reference.startswith("#") else [self._ids[url]] if url in self._ids else []
        for root in roots:
            if fragment and not fragment.startswith("/"):
                anchor = self._ids.get(f"{self._bases.get(root, '')}#{fragment}")
                if anchor is not None:
                    return anchor
            elif (found := self._walk(root, unquote(fragment))) is not None:
                return found
        where = "points nowhere" if roots else "is another document, and none is fetched"
        raise self.fail(pointer, "$ref", f"{reference!r} {where}")

    def _walk(self, pointer: str, fragment: str) -> str | None:
        value = self._nodes.get(pointer)
        for raw in fragment.split("/")[1:]:
            step = raw.replace("~1", "/").replace("~0", "~")
            if isinstance(value, Mapping) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
                value = value[int(step)]
            else:
                return None
            pointer = f"{pointer}/{raw}"
        self._nodes[pointer] = value
        return pointer

    def _base(self, pointer: str) -> str:
        """The pointer of the nearest node above, or at, the pointer that has an id."""
        while pointer and pointer not in self._bases:
            pointer = pointer.rpartition("/")[0]
        return pointer

    def _index(self) -> None:
        """Bounds the document and finds its ids and anchors, without recursion."""
        waiting: list[tuple[object, str, str, int]] = []
        if isinstance(self.tool.parameters, Mapping):
            waiting.append((self.tool.parameters, "", "", 0))
        count = 0
        while waiting:
            value, pointer, base, depth = waiting.pop()
            count += 1
            if depth > MAX_DEPTH:
                raise self.fail(pointer[:200], "schema", f"nested deeper than {MAX_DEPTH} levels")
            if count > MAX_NODES:
                raise self.fail("", "schema", f"more than {MAX_NODES} parts")
            if isinstance(value, Mapping):
                base = self._identify(value, pointer, base)
                below = [(each, f"{pointer}/{escaped(str(key))}") for key, each in value.items()]
            else:
                below = [(each, f"{pointer}/{index}") for index, each in enumerate(value)]  # type: ignore[arg-type, var-annotated]
            waiting += [
                (each, path, base, depth + 1)
                for each, path in below
                if isinstance(each, Mapping) or (isinstance(each, Sequence) and not isinstance(each, str))
            ]

    def _identify(self, value: Mapping[str, object], pointer: str, base: str) -> str:
        identity = value.get("$id", value.get("id"))
        if isinstance(identity, str) and identity.startswith("#"):
            self._note(base + identity, pointer)
        elif isinstance(identity, str):
            base = urldefrag(urljoin(base, identity)).url
            self._bases[pointer] = base
            self._note(base, pointer)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(anchor := value.get(keyword), str):
                self._note(f"{base}#{anchor}", pointer)
        return base

    def _note(self, uri: str, pointer: str) -> None:
        self._ids.setdefault(uri, pointer)
        self._nodes.setdefault(pointer, self._plain_walk(pointer))

    def _plain_walk(self, pointer: str) -> object:
        value: object = self.tool.parameters
        for raw in pointer.split("/")[1:]:
            step = raw.replace("~1", "/").replace("~0", "~")
            value = value[step] if isinstance(value, Mapping) else value[int(step)]  # type: ignore[index]
        return value


def escaped(step: str) -> str:
    """A step of a JSON pointer."""
    return step.replace("~", "~0").replace("/", "~1")
