"""The short cuts around the full-vocabulary mask give exactly what the mask gives."""

from __future__ import annotations

import numpy as np
import pytest

from edge.engine.engine import Engine
from edge.engine.sampling import GrammarCache, SamplerChain, SamplingOptions, TokenTree, draw_allowed
from edge.errors import EngineError, RequestError
from edge.grammar import compile_tool
from edge.types import Tool

TOOL = Tool(
    "f",
    {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
)
TEXT = '\n{"name": "f", "arguments": {"a": "some é text", "b": 12'


@pytest.fixture(scope="module")
def tree(demo_engine: Engine) -> TokenTree:
    return TokenTree(demo_engine.model.vocab)


@pytest.fixture
def grammars(demo_engine):
    cache = GrammarCache(demo_engine.model.vocab)
    yield cache
    cache.close()


def test_the_tree_holds_every_text_token_once(demo_engine, tree):
    vocab = demo_engine.model.vocab
    frontier, seen = tree.roots, []
    while len(frontier):
        seen += frontier.tolist()
        frontier = tree.children(frontier)
    expected = [
        i
        for i in range(vocab.n_tokens)
        if not vocab.is_control(i) and not vocab.is_eog(i) and vocab.piece(i)[:1] not in (b"", b"\0")
    ]
    assert sorted(seen) == expected


def test_the_tree_knows_which_tokens_begin_with_which(demo_engine, tree):
    vocab = demo_engine.model.vocab
    everything = np.arange(vocab.n_tokens, dtype=np.int32)
    other = tree.roots[-1]
    for token in tree.roots[:-1:7]:
        starts = vocab.piece(int(token)), vocab.piece(int(other))
        under = [i for i in everything[tree.is_text] if vocab.piece(int(i)).startswith(starts)]
        found = everything[tree.are_under(everything, np.array([token, other]))]
        assert found.tolist() == under


@pytest.mark.model
def test_descending_the_tree_gives_what_testing_every_token_gives(demo_engine, tree, grammars):
    vocab = demo_engine.model.vocab
    everything = np.flatnonzero(tree.is_text).astype(np.int32)
    grammar = grammars.start(compile_tool(TOOL).gbnf)
    sizes = []
    for token in vocab.tokenize(TEXT):
        full = grammar.allowed_of(everything)
        assert sorted(grammar.allowed(tree)) == sorted(full)
        sizes.append(len(full))
        assert grammar.allows(token)
        grammar.accept(token)
    grammar.close()
    assert min(sizes) < 10  # inside the forced text
    assert max(sizes) > 10_000  # inside the string


@pytest.mark.model
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_the_likeliest_tokens_draw_what_a_full_mask_draws(demo_engine, tree, grammars, temperature):
    vocab, slot = demo_engine.model.vocab, demo_engine.context.slots[0]
    everything = np.flatnonzero(tree.is_text).astype(np.int32)
    slot.clear()
    slot.decode(vocab.tokenize("Here it is: <tool_call>"))
    grammar = grammars.start(compile_tool(TOOL).gbnf)
    n_shortened = 0
    for position, token in enumerate(vocab.tokenize(TEXT)):
        options = SamplingOptions(temperature=temperature, seed=position)
        by_mask, by_likely = SamplerChain(options, vocab), SamplerChain(options, vocab)
        likely, all_found = grammar.allowed_likely(tree, by_likely.logits(slot), by_likely.n_kept)
        n_shortened += not all_found
        full = grammar.allowed_of(everything)
        assert len(likely) == len(full) if all_found else len(likely) < len(full)
        assert by_likely.sample_among(slot, likely) == by_mask.sample_among(slot, full)
        by_mask.close()
        by_likely.close()
        grammar.accept(token)
        slot.decode([token])
    grammar.close()
    assert n_shortened > 0


def test_a_grammar_that_llama_cpp_cannot_parse_is_an_error_and_no_crash(grammars, capfd):
    with pytest.raises(EngineError, match="cannot parse the grammar"):
        grammars.start("root ::= (")


def test_parsed_grammars_are_bounded_by_their_number_and_by_their_text(demo_engine):
    cache = GrammarCache(demo_engine.model.vocab, size=3, n_chars=200)
    small = [f'root ::= "{i}"' for i in range(5)]
    long = f'root ::= "{"a" * 170}"'
    longer = f'root ::= "{"a" * 400}"'
    for text in small:
        cache.start(text).close()
    assert list(cache._parsed) == small[2:]
    cache.start(long).close()
    assert list(cache._parsed) == [small[4], long]
    cache.start(longer).close()  # alone it may be too long: it is in use
    assert list(cache._parsed) == [longer]
    cache.close()


def test_a_grammar_out_of_the_cache_starts_at_the_beginning(demo_engine, grammars):
    first = demo_engine.model.vocab.tokenize("ab")[0]
    a, b = grammars.start('root ::= "ab"'), grammars.start('root ::= "ab"')
    a.accept(first)
    assert b.allows(first)
    a.close()
    b.close()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; allowed is 0 to 5"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": -1}, "min_p is -1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1 << 32}, "seed is 4294967296"),
    ],
)
def test_an_option_outside_its_range_is_named(options, found):
    with pytest.raises(RequestError) as error:
        SamplingOptions(**options).check()
    assert found in str(error.value)


@pytest.mark.model
def test_a_banned_token_is_passed_over_for_the_next_likeliest(demo_engine, grammars):
    vocab, slot = demo_engine.model.vocab, demo_engine.context.slots[0]
    slot.clear()
    slot.decode(vocab.tokenize("Here it is: <tool_call>"))
    grammar = grammars.start(compile_tool(TOOL).gbnf)
    for token in vocab.tokenize(TEXT)[:8]:
        grammar.accept(token)
    chain = SamplerChain(SamplingOptions(temperature=0.0), vocab)
    allowed = grammar.allowed(grammars.tree)
    by_rank = allowed[np.argsort(-chain.logits(slot)[allowed])]
    for n_banned in range(4):
        banned = by_rank[:n_banned].tolist()
        assert draw_allowed(grammar, grammars.tree, chain, slot, banned)[0] == by_rank[n_banned]
    assert draw_allowed(grammar, grammars.tree, chain, slot, allowed.tolist()) == (None, True)
    chain.close()
    grammar.close()
