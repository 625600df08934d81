"""Rooms import in one direction only; this reads every file's imports and holds it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]

# room -> what of ours it may import, besides itself
ALLOWED = {
    "edge.errors": set(),
    "edge.types": set(),
    "edge.grammar": {"edge.errors", "edge.types"},
    "edge.chat": {"edge.errors", "edge.types"},
    "edge.engine": {"edge.errors", "edge.types", "edge.grammar", "edge.chat"},
    # `load` brings a catalogue row and an engine together for programs that use the library.
    "edge.models": {"edge.errors", "edge.types", "edge.chat", "edge.engine"},
    "edge.server": {"edge.errors", "edge.types", "edge.grammar", "edge.chat", "edge.engine"},
    "edge.accuracy": {"edge.errors", "edge.types", "edge.grammar", "edge.chat", "edge.engine"},
    "edge.bench": {"edge.errors", "edge.types", "edge.engine"},
    "edge.tools": {"edge.errors", "edge.types", "edge.grammar", "edge.chat", "edge.engine"},
    # Looks after the board and the program on it, so it knows both.
    "edge.deploy": {
        "edge.errors", "edge.types", "edge.grammar", "edge.chat", "edge.engine", "edge.models", "profiles",
    },
    "edge.cli": {
        "edge.errors", "edge.types", "edge.grammar", "edge.chat", "edge.engine", "edge.models",
        "edge.server", "edge.accuracy", "edge.bench", "edge.tools", "edge.deploy", "convert", "profiles",
    },
    "edge.examples": {"edge"},
    "edge": {"edge.errors", "edge.types", "edge.chat", "edge.engine", "edge.models"},
    "convert": set(),
    "profiles": set(),
}  # fmt: skip
LLAMA_CPP_ROOMS = {"edge.engine", "convert"}


def room_of(module: str) -> str:
    """`edge.engine.model` is in `edge.engine`; `convert.lora` in `convert`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "edge" else parts[0]


def files() -> list[Path]:
    return sorted(
        path for package in ("edge", "convert", "profiles") for path in (REPO / package).rglob("*.py")
    )


def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they go"
            found.add(node.module or "")
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(REPO)))
def test_a_room_imports_only_what_it_may(path):
    room = room_of(module_of(path))
    ours = {
        room_of(name) for name in imports_of(path) if name.split(".")[0] in ("edge", "convert", "profiles")
    }
    assert ours - ALLOWED[room] - {room} == set()


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(REPO)))
def test_llama_cpp_is_imported_in_its_rooms_only(path):
    uses = any(name.split(".")[0] == "llama_cpp" for name in imports_of(path))
    assert not uses or room_of(module_of(path)) in LLAMA_CPP_ROOMS


def test_one_module_of_each_room_imports_llama_cpp():
    users = [module_of(p) for p in files() if any(n.split(".")[0] == "llama_cpp" for n in imports_of(p))]
    assert sorted(room_of(module) for module in users) == sorted(LLAMA_CPP_ROOMS), users


def test_what_the_catalogue_names_by_text_is_in_the_room_that_joins_the_others():
    """A builder needs `edge.models` and `convert`; the catalogue's text must not lead around the table above."""
    from edge.models.catalogue import BuiltSource, catalogue

    sources = [source for entry in catalogue().values() for source in entry.sources]
    named = [source.builder for source in sources if isinstance(source, BuiltSource)]
    assert named
    assert {room_of(builder.partition(":")[0]) for builder in named} == {"edge.cli"}


def test_there_is_no_way_around_in_a_circle():
    seen: set[str] = set()

    def walk(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, " -> ".join((*path, room))
        if room not in seen:
            for other in ALLOWED[room]:
                walk(other, (*path, room))
            seen.add(room)

    for room in ALLOWED:
        walk(room, ())
