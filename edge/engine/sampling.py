"""Choosing the next token: llama.cpp's sampler chain and its grammar sampler, check-first.

A chain's choice is checked against the grammar alone (microseconds). Only when it is refused are the allowed
tokens worked out, and then not by testing the whole vocabulary (10 ms at 49,152 tokens). A tree of token prefixes is
descended: a token can only be allowed if the token that is its prefix is. Where little is allowed that soon finds
all of it. Where it does not, text is rather free, and the likeliest of what is still in question are tested: if the
chain keeps k tokens and k of them are allowed, no other token can matter. Both give exactly what a full mask gives.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge.engine.model import Vocabulary
from edge.engine.native import llama
from edge.engine.slot import Slot
from edge.errors import EngineError, RequestError

TokenIds = npt.NDArray[np.int32]
_Indices = npt.NDArray[np.int64]

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
# Of the likeliest tokens a few times what the chain keeps are tested: where text is free nearly all are allowed.
_LIKELY_PER_NEEDED, _LIKELY_AT_LEAST = 8, 64
# A level of the tree with more tokens than this costs more than testing the likeliest.
_WIDE_LEVEL = 512
_MAX_TRIES = 64  # tokens tried at one place before it is given up
# At 0.3 a token of half another's probability is drawn a tenth as often.
_SHARP_TEMPERATURE = 0.3
_MAX_SEED = 0xFFFFFFFE  # 0xFFFFFFFF asks llama.cpp for a random one


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How a token is drawn. temperature 0 takes the likeliest, None what suits the model; seed None draws a seed."""

    temperature: float | None = None
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None

    def check(self) -> None:
        """Raises RequestError for a value outside its range."""
        ranges: tuple[tuple[str, float, float, float], ...] = (
            ("temperature", self.temperature or 0.0, 0.0, 5.0),
            ("top_k", self.top_k, 0, 1 << 20),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("seed", self.seed or 0, 0, _MAX_SEED),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:  # also refuses NaN
                raise RequestError(f"{name} is {value}; allowed is {low:.10g} to {high:.10g}")


class Candidates:
    """A reusable `llama_token_data_array` with room for the whole vocabulary, for one thread."""

    def __init__(self, capacity: int) -> None:
        lib = llama()
        self._all_ids: TokenIds = np.arange(capacity, dtype=np.int32)
        self._data = np.zeros(capacity, dtype=_TOKEN_DATA)
        self._pointer = self._data.ctypes.data_as(lib.llama_token_data_p)
        self.array = lib.llama_token_data_array(self._pointer, 0, -1, False)
        self.reference = ctypes.byref(self.array)

    def fill(self, ids: TokenIds, logits: npt.NDArray[np.float32] | float) -> npt.NDArray[Any]:
        """Makes `ids` with their logits the candidates; returns the view that samplers write into."""
        view = self._data[: len(ids)]
        view["id"] = ids
        view["logit"] = logits
        view["p"] = 0.0
        self.array.data, self.array.size, self.array.selected, self.array.sorted = (
            self._pointer,
            len(ids),
            -1,
            False,
        )
        return view

    def fill_all(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """As `fill` with every token."""
        return self.fill(self._all_ids, logits)


class SamplerChain:
    """top_k, top_p, min_p, temperature, draw; or the likeliest token at temperature 0.

    candidates: what others on this thread work with too, 0.8 MB at 49,152 tokens; None makes some of its own.
    """

    def __init__(
        self, options: SamplingOptions, vocab: Vocabulary, candidates: Candidates | None = None
    ) -> None:
        options.check()
        lib = llama()
        self._options = options
        self._vocab = vocab
        self._candidates = candidates or Candidates(vocab.n_tokens)
        self._logits_type = ctypes.c_float * vocab.n_tokens
        self.pointer = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for sampler in self._samplers(options):
            lib.llama_sampler_chain_add(self.pointer, sampler)  # the chain owns it now

    @staticmethod
    def _samplers(options: SamplingOptions) -> list[Any]:
        lib = llama()
        if not options.temperature:
            return [lib.llama_sampler_init_greedy()]
        seed = 0xFFFFFFFF if options.seed is None else options.seed
        return [
            lib.llama_sampler_init_top_k(options.top_k),
            lib.llama_sampler_init_top_p(options.top_p, 1),
            lib.llama_sampler_init_min_p(options.min_p, 1),
            lib.llama_sampler_init_temp(options.temperature),
            lib.llama_sampler_init_dist(seed),
        ]

    @property
    def is_sharp(self) -> bool:
        """Whether the likeliest token is taken, all but always."""
        return (self._options.temperature or 0.0) <= _SHARP_TEMPERATURE

    @property
    def n_kept(self) -> int | None:
        """How many of the likeliest tokens decide the draw; None when all do."""
        return 1 if not self._options.temperature else self._options.top_k or None

    def sample(self, slot: Slot) -> int:
        """A token from the whole vocabulary, by the logits of the last decoded token."""
        return int(llama().llama_sampler_sample(self.pointer, slot.pointer, slot.i_output))

    def sample_among(self, slot: Slot, ids: TokenIds) -> int:
        """A token from `ids` alone."""
        self._candidates.fill(ids, self.logits(slot)[ids])
        return self._draw()

    def sample_without(self, slot: Slot, banned: set[int]) -> int:
        """A token from all but `banned`."""
        view = self._candidates.fill_all(self.logits(slot))
        view["logit"][list(banned)] = -np.inf
        return self._draw()

    def probability(self, slot: Slot, tokens: Sequence[int]) -> float:
        """That one of these tokens is next, 0 to 1, by the logits alone."""
        logits = self.logits(slot).astype(np.float64)
        weights = np.exp(logits - logits.max())
        return float(weights[list(tokens)].sum() / weights.sum())

    def _draw(self) -> int:
        llama().llama_sampler_apply(self.pointer, self._candidates.reference)
        array = self._candidates.array
        if not 0 <= array.selected < array.size:
            raise EngineError("the sampler chain chose no token: the model's logits are not numbers")
        return int(array.data[array.selected].id)

    def logits(self, slot: Slot) -> npt.NDArray[np.float32]:
        """Logits of the last decoded token, (n_vocab,). A view into llama.cpp's buffer: gone at the next decode."""
        pointer = llama().llama_get_logits_ith(slot.pointer, slot.i_output)
        # Not of the pointer itself: numpy would cast it, and each of ctypes' casts leaves a reference cycle.
        there = self._logits_type.from_address(ctypes.addressof(pointer.contents))
        return np.ctypeslib.as_array(there)

    def close(self) -> None:
        """Frees the chain. Safe to call twice."""
        if self.pointer is not None:
            llama().llama_sampler_free(self.pointer)
            self.pointer = None


class TokenTree:
    """The vocabulary as a tree: a token's parent is the longest other token that its bytes begin with.

    Holds text tokens only: no control tokens, no end of generation, none without bytes.
    """

    def __init__(self, vocab: Vocabulary) -> None:
        n = vocab.n_tokens
        text = (i for i in range(n) if not (vocab.is_control(i) or vocab.is_eog(i)))
        pieces = sorted((vocab.piece(i), i) for i in text)
        pieces = [
            (piece, i) for piece, i in pieces if piece and piece[0] != 0
        ]  # llama.cpp's grammars match none
        parent, self._place, self._n_below = _nested(pieces, n)
        self.is_text = np.zeros(n, dtype=np.bool_)
        self.is_text[[token for _, token in pieces]] = True
        self.roots: TokenIds = np.flatnonzero(self.is_text & (parent < 0)).astype(np.int32)
        children = np.flatnonzero(parent >= 0).astype(np.int32)
        self._children: TokenIds = children[np.argsort(parent[children], kind="stable")]
        self._first = np.searchsorted(parent[self._children], np.arange(n + 1)).astype(np.int64)

    def children(self, tokens: TokenIds) -> TokenIds:
        """All children of all `tokens`."""
        starts = self._first[tokens]
        counts = self._first[tokens + 1] - starts
        # The ranges [start, start + count) of each token, laid end to end.
        offsets = np.repeat(starts - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        found: TokenIds = self._children[np.arange(int(counts.sum())) + offsets]
        return found

    def are_under(self, tokens: TokenIds, roots: TokenIds) -> npt.NDArray[np.bool_]:
        """Which of `tokens` are one of `roots` or begin with one. No root may begin with another."""
        roots = roots[np.argsort(self._place[roots])]
        nearest = roots[np.maximum(np.searchsorted(self._place[roots], self._place[tokens], "right") - 1, 0)]
        behind = self._place[tokens] - self._place[nearest]
        under: npt.NDArray[np.bool_] = (
            (behind >= 0) & (behind <= self._n_below[nearest]) & self.is_text[tokens]
        )
        return under


def _nested(pieces: Sequence[tuple[bytes, int]], n_tokens: int) -> tuple[TokenIds, _Indices, _Indices]:
    """By token: its parent or -1, its place among the sorted pieces, how many of those behind it begin with it."""
    parent = np.full(n_tokens, -1, dtype=np.int32)
    place, n_below = np.zeros(n_tokens, dtype=np.int64), np.zeros(n_tokens, dtype=np.int64)
    above: list[tuple[bytes, int, int]] = []
    for i, (piece, token) in enumerate([*pieces, (b"", -1)]):
        while above and not (piece and piece.startswith(above[-1][0])):
            _, left, left_at = above.pop()
            n_below[left] = i - left_at - 1
        if piece:
            parent[token] = above[-1][1] if above else -1
            place[token] = i
            above.append((piece, token, i))
    return parent, place, n_below


class Grammar:
    """A llama.cpp grammar at some position of a text. Never accepts what it does not allow: that aborts."""

    def __init__(self, pointer: Any, candidates: Candidates) -> None:  # noqa: ANN401 - ctypes pointer
        self._pointer = pointer
        self._candidates = candidates
        lib = llama()
        # Checked at every token: plain ctypes, because numpy's set-up takes longer than the check.
        self._one = lib.llama_token_data(0, 0.0, 0.0)
        self._only = lib.llama_token_data_array(ctypes.pointer(self._one), 1, -1, False)
        self._only_reference = ctypes.byref(self._only)
        self._apply = lib.llama_sampler_apply

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        self._one.id, self._one.logit = token, 0.0
        self._apply(self._pointer, self._only_reference)
        return bool(self._one.logit == 0.0)

    def allowed_of(self, tokens: TokenIds) -> TokenIds:
        """Those of `tokens` that may come next."""
        view = self._candidates.fill(tokens, 0.0)
        llama().llama_sampler_apply(self._pointer, self._candidates.reference)
        kept: TokenIds = tokens[view["logit"] == 0.0]
        return kept

    def allowed(self, tree: TokenTree) -> TokenIds:
        """All text tokens that may come next: what a mask over the whole vocabulary would leave, much sooner."""
        frontier = self.allowed_of(tree.roots)
        found = [frontier]
        while len(children := tree.children(frontier)):
            frontier = self.allowed_of(children)
            found.append(frontier)
        return np.concatenate(found)

    def allowed_likely(
        self, tree: TokenTree, logits: npt.NDArray[np.float32], n_needed: int
    ) -> tuple[TokenIds, bool]:
        """Allowed text tokens with the `n_needed` likeliest among them, or all; and whether it took the whole tree."""
        frontier, found, tried = tree.roots, tree.roots[:0], False
        while len(frontier):
            if len(frontier) > _WIDE_LEVEL and not tried:
                tried = True
                allowed = self.allowed_of(_likeliest(tree, found, frontier, logits, n_needed))
                if len(allowed) >= n_needed:
                    return allowed, False
            frontier = self.allowed_of(frontier)
            found = np.concatenate((found, frontier))
            frontier = tree.children(frontier)
        return found, True

    def accept(self, token: int) -> None:
        """Moves on by a token that `allows` has confirmed."""
        llama().llama_sampler_accept(self._pointer, token)

    def close(self) -> None:
        """Frees the grammar. Safe to call twice."""
        if self._pointer is not None:
            llama().llama_sampler_free(self._pointer)
            self._pointer = None


def _likeliest(
    tree: TokenTree, found: TokenIds, frontier: TokenIds, logits: npt.NDArray[np.float32], n_needed: int
) -> TokenIds:
    """The likeliest of the tokens in `found`, in `frontier` and below that: a few times as many as are needed."""
    n = _LIKELY_AT_LEAST + _LIKELY_PER_NEEDED * n_needed
    # A threshold sorts the far ones out several times faster than a selection from the vocabulary does. Where it
    # lies is read off every 64th token: for the result it does not matter.
    some = np.sort(logits[::64])
    n_near = 2 * n
    while True:
        rank = len(some) - 1 - n_near // 64
        near = np.flatnonzero(logits >= some[rank] if rank > 0 else logits > -np.inf).astype(np.int32)
        near = near[tree.are_under(near, frontier) | np.isin(near, found)]
        if len(near) >= n or rank <= 0:
            break
        n_near *= 8
    return near if len(near) <= n else near[np.argpartition(-logits[near], n)[:n]]


def draw_allowed(
    grammar: Grammar, tree: TokenTree, chain: SamplerChain, slot: Slot, banned: Sequence[int] = ()
) -> tuple[int | None, bool]:
    """A text token that the grammar allows and that is not banned, None if there is none.

    And whether all allowed tokens had to be found for it.
    """
    if chain.n_kept is None:
        allowed, all_found = grammar.allowed(tree), True
    else:
        n_needed = chain.n_kept + len(banned)
        allowed, all_found = grammar.allowed_likely(tree, chain.logits(slot), n_needed)
    if banned:
        allowed = allowed[~np.isin(allowed, banned)]
    return (chain.sample_among(slot, allowed) if len(allowed) else None), all_found


def draw_without_fault(
    grammar: Grammar,
    tree: TokenTree,
    chain: SamplerChain,
    slot: Slot,
    refused: int,
    is_fault: Callable[[int], bool],
) -> tuple[int | None, int]:
    """A text token other than `refused`, allowed and no fault, None if none is found; and how many were tried."""
    banned = [refused]
    while len(banned) <= _MAX_TRIES:
        drawn, _ = draw_allowed(grammar, tree, chain, slot, banned)
        if drawn is None or not is_fault(drawn):
            return drawn, len(banned)
        banned.append(drawn)
    return None, len(banned)


class GrammarCache:
    """Parsed grammars by their text: parsing is done once, each use gets a copy at the start position."""

    def __init__(self, vocab: Vocabulary, size: int = 64, n_chars: int = 4 << 20) -> None:
        self._vocab, self._size = vocab, size
        self._n_chars = n_chars  # of all texts: what llama.cpp parses them into grows with them
        self._parsed: OrderedDict[str, Any] = OrderedDict()
        self.candidates: Final = Candidates(vocab.n_tokens)
        self._tree: Future[TokenTree] | None = None

    def prepare(self) -> None:
        """Starts building the token tree beside whatever comes next: prefilling leaves Python idle."""
        if self._tree is None:
            self._tree = Future()
            Thread(target=self._build_tree, args=(self._tree,), daemon=True).start()

    def _build_tree(self, future: Future[TokenTree]) -> None:
        try:
            # A reader of its own: the one of the decoding thread is not made for two.
            future.set_result(TokenTree(Vocabulary(self._vocab.pointer)))
        except BaseException as exc:  # noqa: BLE001 - raised where the tree is asked for
            future.set_exception(exc)

    @property
    def tree(self) -> TokenTree:
        """The token tree: 0.1 s for 49,152 tokens, once."""
        self.prepare()
        assert self._tree is not None
        return self._tree.result()

    def start(self, gbnf: str) -> Grammar:
        """A grammar at its start. Raises EngineError when llama.cpp cannot parse the text."""
        lib = llama()
        pristine = self._parsed.get(gbnf)
        if pristine is None:
            pristine = lib.llama_sampler_init_grammar(self._vocab.pointer, gbnf.encode(), b"root")
            if not pristine:
                raise EngineError("llama.cpp cannot parse the grammar of this call")
            self._parsed[gbnf] = pristine
            while len(self._parsed) > 1 and self._is_too_much():
                lib.llama_sampler_free(self._parsed.popitem(last=False)[1])
        self._parsed.move_to_end(gbnf)
        return Grammar(lib.llama_sampler_clone(pristine), self.candidates)

    def _is_too_much(self) -> bool:
        return len(self._parsed) > self._size or sum(map(len, self._parsed)) > self._n_chars

    def close(self) -> None:
        """Frees all parsed grammars. The vocabulary may go after this."""
        if self._tree is not None:
            self._tree.exception()  # waits: the thread reads the vocabulary
        while self._parsed:
            llama().llama_sampler_free(self._parsed.popitem()[1])
