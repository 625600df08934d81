"""Which tool is named decides the rules: driven by a chain that wants to write one given text."""

from __future__ import annotations

import json

import pytest

from edge.engine.constraint import CallConstraint
from edge.engine.sampling import GrammarCache
from edge.errors import EngineError
from edge.grammar import compile_tool
from edge.types import Tool

NAMES = ["get", "get_weather", "weather", "a b", 'quo"te', "back\\slash", "naïve", "x.y-z"]


def tool(name, **properties):
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return compile_tool(Tool(name, schema))


class Wanting:
    """A chain that always samples what `tokens` say; when it may not, it takes the first allowed token."""

    n_kept = None

    def __init__(self, tokens):
        self._tokens = iter(tokens)
        self.n_turned_down = 0

    def sample(self, _context):
        return next(self._tokens)

    def sample_among(self, _context, ids):
        self.n_turned_down += 1
        return int(ids[0])


@pytest.fixture
def grammars(demo_engine):
    cache = GrammarCache(demo_engine.model.vocab)
    yield cache
    cache.close()


def call_text(name, arguments):
    return f"\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}\n</tool_call>"


@pytest.mark.model
@pytest.mark.parametrize("name", NAMES)
def test_any_of_many_tools_can_be_called_in_the_trained_form(demo_engine, grammars, name):
    vocab = demo_engine.model.vocab
    tools = [tool(n, **{f"p{i}": {"type": "integer"}}) for i, n in enumerate(NAMES)]
    text = call_text(name, {f"p{NAMES.index(name)}": 7})
    tokens = vocab.tokenize(text)
    chain = Wanting(tokens)
    constraint = CallConstraint(tools, grammars, vocab)
    for token in tokens:
        assert constraint.choose(chain, demo_engine.context.slots[0]) == token
        constraint.accept(token)
    assert constraint.tool is not None
    assert constraint.tool.tool.name == name
    assert chain.n_turned_down == constraint.n_refused == 0
    constraint.close()


@pytest.mark.model
def test_the_arguments_of_another_tool_are_refused_from_the_first_token_that_differs(demo_engine, grammars):
    vocab = demo_engine.model.vocab
    tools = [tool("get", a={"type": "null"}), tool("put", b={"type": "null"})]
    written = b""
    tokens = vocab.tokenize(call_text("put", {"a": None}))
    chain, constraint = Wanting(tokens), CallConstraint(tools, grammars, vocab)
    while chain.n_turned_down == 0:
        token = constraint.choose(chain, demo_engine.context.slots[0])
        constraint.accept(token)
        written += vocab.piece(token)
    assert written.startswith(b'\n{"name": "put", "arguments": {"b')
    constraint.close()


@pytest.mark.model
def test_a_control_token_is_never_part_of_a_call(demo_engine, grammars):
    vocab = demo_engine.model.vocab
    control = vocab.tokenize("<|im_start|>")
    assert len(control) == 1
    before = vocab.tokenize('\n{"name": "say", "arguments": {"text": "')
    chain = Wanting([*before, *control])
    constraint = CallConstraint([tool("say", text={"type": "string"})], grammars, vocab)
    for _ in before:
        constraint.accept(constraint.choose(chain, demo_engine.context.slots[0]))
    assert constraint.choose(chain, demo_engine.context.slots[0]) != control[0]
    assert chain.n_turned_down == 1
    constraint.close()


def test_a_vocabulary_without_a_way_on_is_an_error_and_no_abort(demo_engine, grammars):
    constraint = CallConstraint([tool("f")], grammars, demo_engine.model.vocab)
    grammars.tree.roots = grammars.tree.roots[:0]
    with pytest.raises(EngineError, match="no token of this vocabulary continues the call"):
        constraint.choose(Wanting(demo_engine.model.vocab.tokenize("never")), demo_engine.context.slots[0])
    constraint.close()


@pytest.mark.model
@pytest.mark.parametrize(
    ("written", "refused"),
    [
        (b"\xf0", b"\x80"),  # U+0000 to U+FFFF in four bytes
        (b"\xe0", b"\x80"),  # U+0000 to U+07FF in three
        (b"\xed", b"\xa0"),  # half of a surrogate pair
        (b"\xf4", b"\x90"),  # beyond U+10FFFF
    ],
)
def test_bytes_that_are_not_utf_8_are_refused_though_llama_cpp_takes_them(tiny_engine, written, refused):
    vocab = tiny_engine.model.vocab
    byte_ids = {vocab.piece(i): i for i in range(256)}
    cache = GrammarCache(vocab)
    constraint = CallConstraint([tool("say", text={"type": "string"})], cache, vocab)
    before = b'\n{"name": "say", "arguments": {"text": "' + written
    wanted = [byte_ids[bytes([b])] for b in before + refused]
    chain = Wanting(wanted)
    tiny_engine.context.slots[0].clear()
    tiny_engine.context.slots[0].decode([1])
    for _ in before:
        constraint.accept(constraint.choose(chain, tiny_engine.context.slots[0]))
    assert constraint.choose(chain, tiny_engine.context.slots[0]) != byte_ids[refused]
    constraint.close()
    cache.close()
