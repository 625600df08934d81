"""The constraint on one open call: first its name, then the rules of the named tool alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edge.engine.context import Context
from edge.engine.model import Vocabulary
from edge.engine.sampling import Grammar, GrammarCache, SamplerChain
from edge.errors import EngineError
from edge.grammar import CompiledTool, tool_name_gbnf

_BEFORE_NAME = '\n{"name": '


class CallConstraint:
    """Chooses tokens of the text after `<tool_call>` so that it becomes a valid call of one of `tools`.

    While the name is open the grammar holds the names and nothing else. The token that closes the name decides
    the tool; the tokens so far are replayed in that tool's grammar, which takes over. So the cost of a token
    does not depend on how many tools there are.
    """

    def __init__(self, tools: Sequence[CompiledTool], grammars: GrammarCache, vocab: Vocabulary) -> None:
        self._grammars, self._vocab = grammars, vocab
        self._by_opening = {_opening(tool): tool for tool in tools}
        self._tokens: list[int] = []
        self._text = b""
        self.n_refused = 0  # choices that the grammar did not allow
        self.n_descended = 0  # of these, how often the likeliest tokens did not suffice
        self.tool: CompiledTool | None = tools[0] if len(tools) == 1 else None
        gbnf = self.tool.gbnf if self.tool else tool_name_gbnf([tool.tool.name for tool in tools])
        self._grammar = grammars.start(gbnf)

    def choose(self, chain: SamplerChain, context: Context) -> int:
        """The next token, drawn by `chain` from what the grammar allows. Not yet accepted."""
        token = self._choose(chain, context)
        if self.tool is None and (named := self._named_by(token)):
            self._switch_to(named)
            # The token may run on past the name in a way that this tool's grammar refuses.
            token = token if self._permits(token) else self._choose_allowed(chain, context)
        return token

    def accept(self, token: int) -> None:
        """Moves on by a token that `choose` gave."""
        self._grammar.accept(token)
        self._tokens.append(token)
        if self.tool is None:
            self._text += self._vocab.piece(token)

    def close(self) -> None:
        """Frees the grammar."""
        self._grammar.close()

    def _choose(self, chain: SamplerChain, context: Context) -> int:
        token = chain.sample(context)
        return token if self._permits(token) else self._choose_allowed(chain, context)

    def _choose_allowed(self, chain: SamplerChain, context: Context) -> int:
        self.n_refused += 1
        tree, allowed = self._grammars.tree, None
        if chain.n_kept is not None:
            allowed = self._grammar.allowed_likely(chain.logits(context), chain.n_kept, tree)
        if allowed is None:
            self.n_descended += 1
            allowed = self._grammar.allowed(tree)
        if not len(allowed):
            raise EngineError("no token of this vocabulary continues the call")
        return chain.sample_among(context, allowed)

    def _permits(self, token: int) -> bool:
        # A control token would pass as the characters of its name inside a JSON string.
        return self._grammar.allows(token) and not self._vocab.is_control(token)

    def _named_by(self, token: int) -> CompiledTool | None:
        text = self._text + self._vocab.piece(token)
        return next((tool for opening, tool in self._by_opening.items() if text.startswith(opening)), None)

    def _switch_to(self, tool: CompiledTool) -> None:
        grammar = self._grammars.start(tool.gbnf)
        _replay(grammar, self._tokens)
        self._grammar.close()
        self._grammar, self.tool = grammar, tool


def _opening(tool: CompiledTool) -> bytes:
    return (_BEFORE_NAME + json.dumps(tool.tool.name, ensure_ascii=False)).encode()


def _replay(grammar: Grammar, tokens: Sequence[int]) -> None:
    for token in tokens:
        if not grammar.allows(token):  # accepting it would abort the process
            raise EngineError("the grammar of the named tool refuses the text that named it")
        grammar.accept(token)
