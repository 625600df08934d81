"""The constraint on one open call: first its name, then the rules of the named tool alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os.path import commonprefix  # of any strings; os.path is only where it lives

from edge.engine.model import Vocabulary
from edge.engine.sampling import Grammar, GrammarCache, SamplerChain, draw_allowed, draw_without_fault
from edge.engine.slot import Slot
from edge.engine.written import DeadEnd, WrittenText
from edge.errors import EngineError
from edge.grammar import CompiledTool, tool_name_gbnf

# Steps back in one call before it is given up.
_MAX_STEPS_BACK = 32
_BEFORE_NAME = '\n{"name": '


class CallConstraint:
    """Chooses tokens of the text after `<tool_call>` so that it becomes a valid call of one of `tools`.

    While the name is open the grammar holds the names and nothing else. Once the text can only be one tool's, the
    tokens so far are replayed in that tool's grammar, which takes over. So the cost of a token does not depend on
    how many tools there are. Beside the grammar a matcher follows the text: it knows what must come next.
    """

    def __init__(self, tools: Sequence[CompiledTool], grammars: GrammarCache, vocab: Vocabulary) -> None:
        self._grammars, self._vocab = grammars, vocab
        self._by_opening = {_opening(tool): tool for tool in tools}
        self._tokens: list[int] = []
        self._written = WrittenText()
        self._chosen: list[
            tuple[int, int]
        ] = []  # how many tokens came before each that was chosen, and which
        self._given_up: dict[int, set[int]] = {}  # by how many tokens come before: what led to a dead end
        self._n_steps_back = 0
        self.n_refused = 0  # choices that the grammar did not allow
        self.n_descended = 0  # of these, how often all that is allowed had to be found
        self.tool: CompiledTool | None = None
        if len(tools) == 1:
            self._grammar = grammars.start(tools[0].gbnf)
            self.tool = self._written.rules = tools[0]
        else:
            self._grammar = grammars.start(tool_name_gbnf([tool.tool.name for tool in tools]))

    def choose(self, chain: SamplerChain, slot: Slot) -> int:
        """The next token, drawn by `chain` from what the grammar allows. Not yet accepted.

        Raises DeadEnd where the grammar allows only what the schema forbids; then `step_back`.
        """
        token = self._choose(chain, slot)
        if self.tool is None and (named := self._named_by(token)):
            self._switch_to(named)
            # The token may run on past the name in a way that this tool's grammar refuses.
            token = token if self._permits(token) else self._choose_allowed(chain, slot)
        if self._is_fault(token):
            token = self._choose_without_fault(token, chain, slot)
        self._chosen.append((len(self._tokens), token))
        return token

    def accept(self, token: int) -> None:
        """Moves on by a token that `choose` gave."""
        self._grammar.accept(token)
        self._tokens.append(token)
        self._written.data += self._vocab.piece(token)

    def step_back(self) -> list[int] | None:
        """Goes back to before the last choice, which is not made again; the tokens that remain, None for giving up."""
        if self.tool is None or not self._chosen or self._n_steps_back == _MAX_STEPS_BACK:
            return None
        self._n_steps_back += 1
        n_before, token = self._chosen.pop()
        self._given_up = {n: tokens for n, tokens in self._given_up.items() if n <= n_before}
        self._given_up.setdefault(n_before, set()).add(token)
        tokens = self._tokens = self._tokens[:n_before]
        self._written.rewrite(b"".join(map(self._vocab.piece, tokens)))
        self._switch_to(self.tool)
        return tokens

    def forced(self) -> list[int]:
        """The tokens that must come next, already accepted; none where there is a choice.

        The text is tokenized as the whole would be. Its last token is left to the model where text follows, for
        it may be written as one with what follows. Where the text so far does not end at a boundary of that
        tokenization the model goes on by itself.
        """
        text, forced_text, ends = self._forced_text()
        if not forced_text:
            return []
        tokens = self._tail_tokens(text, forced_text)
        accepted = []
        for token in tokens if ends else tokens[:-1]:
            if not self._permits(token):
                break
            self.accept(token)
            accepted.append(token)
        return accepted

    def can_end_within(self, n_tokens: int) -> bool:
        """Whether the shortest end of this call fits; taken to fit while it is not known whose call it is."""
        place = self._written.place()
        # No more tokens than characters: the shortest text is ASCII but for names. Asked at every token near the end.
        if place is None or place.shortest_length() <= n_tokens:
            return True
        return len(self._vocab.tokenize(place.shortest(), parse_special=False)) <= n_tokens

    def close(self) -> None:
        """Frees the grammar."""
        self._grammar.close()

    def _forced_text(self) -> tuple[str, str, bool]:
        """The text so far, what must follow it, and whether the call is over behind that."""
        nothing = "", "", False
        if self.tool is None:
            data = self._written.data
            open_names = [opening for opening in self._by_opening if opening.startswith(data)]
            if len(open_names) > 1:
                end = commonprefix([opening.decode() for opening in open_names])  # noqa: RUF071
                written = data.decode("utf-8", "replace")
                return (written, end[len(written) :], False) if end.startswith(written) else nothing
            self._switch_to(self._by_opening[open_names[0]])
        place = self._written.place()
        if place is None or self._written.ends_inside_a_character():
            return nothing
        forced_text = place.forced()
        following = place.after(forced_text)
        return self._written.data.decode(), forced_text, following is not None and following.is_complete

    def _tail_tokens(self, text: str, forced_text: str) -> list[int]:
        tokens = self._vocab.tokenize(text + forced_text, parse_special=False)
        n_bytes, end = 0, len(text.encode())
        for i, token in enumerate(tokens):
            if n_bytes == end:
                return tokens[i:]
            n_bytes += len(self._vocab.piece(token))
        return []

    def _choose(self, chain: SamplerChain, slot: Slot) -> int:
        token = chain.sample(slot)
        return token if self._permits(token) else self._choose_allowed(chain, slot)

    def _choose_allowed(self, chain: SamplerChain, slot: Slot) -> int:
        self.n_refused += 1
        token, descended = draw_allowed(self._grammar, self._grammars.tree, chain, slot)
        self.n_descended += descended
        if token is None:
            raise EngineError("no token of this vocabulary continues the call")
        return token

    def _is_fault(self, token: int) -> bool:
        return token in self._given_up.get(len(self._tokens), ()) or self._written.is_fault(
            self._vocab.piece(token)
        )

    def _choose_without_fault(self, token: int, chain: SamplerChain, slot: Slot) -> int:
        """Another token than `token`."""
        drawn, n_tries = draw_without_fault(
            self._grammar, self._grammars.tree, chain, slot, token, self._is_fault
        )
        self.n_refused += n_tries
        if drawn is None:
            raise DeadEnd
        return drawn

    def _permits(self, token: int) -> bool:
        # A control token would pass as the characters of its name inside a JSON string.
        return self._grammar.allows(token) and not self._vocab.is_control(token)

    def _named_by(self, token: int) -> CompiledTool | None:
        text = self._written.data + self._vocab.piece(token)
        return next((tool for opening, tool in self._by_opening.items() if text.startswith(opening)), None)

    def _switch_to(self, tool: CompiledTool) -> None:
        grammar = self._grammars.start(tool.gbnf)
        _replay(grammar, self._tokens)
        self._grammar.close()
        self._grammar, self.tool, self._written.rules = grammar, tool, tool


def n_shortest_call(tool: CompiledTool, vocab: Vocabulary) -> int:
    """Tokens of the shortest call of a tool, from behind `<tool_call>`."""
    return len(vocab.tokenize(tool.matcher.start.shortest(), parse_special=False))


def _opening(tool: CompiledTool) -> bytes:
    return (_BEFORE_NAME + json.dumps(tool.tool.name, ensure_ascii=False)).encode()


def _replay(grammar: Grammar, tokens: Sequence[int]) -> None:
    for token in tokens:
        if not grammar.allows(token):  # accepting it would abort the process
            raise EngineError("the grammar of the named tool refuses the text that named it")
        grammar.accept(token)
