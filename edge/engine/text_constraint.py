"""The constraint on an answer's whole text: a JSON schema or a GBNF grammar instead of free text."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edge.engine.model import Vocabulary
from edge.engine.sampling import GrammarCache, SamplerChain, draw_allowed, draw_without_fault
from edge.engine.slot import Slot
from edge.engine.written import DeadEnd, WrittenText
from edge.grammar import CompiledSchema


@dataclass(frozen=True, slots=True)
class TextRules:
    """What an answer's text follows. schema: where it came from, if that says more than the grammar does."""

    gbnf: str
    schema: CompiledSchema | None = None


class TextConstraint:
    """Chooses tokens of a text that follows its rules; the text may end where these are complete.

    What the grammar cannot say is checked as the text grows: a token that breaks it is refused. An answer that has
    been handed out cannot be taken back, so where every token is refused it stays unfinished.
    """

    def __init__(self, rules: TextRules, grammars: GrammarCache, vocab: Vocabulary) -> None:
        self._grammars, self._vocab, self._schema = grammars, vocab, rules.schema
        self._grammar = grammars.start(rules.gbnf)
        self._written = WrittenText(rules.schema)
        self.n_refused = self.n_descended = 0  # as of `CallConstraint`

    def choose(self, chain: SamplerChain, slot: Slot) -> int | None:
        """The next token, accepted; None where the model ends the text, or the rules leave nothing to add.

        Raises DeadEnd where the grammar allows only what the schema forbids.
        """
        token = self._choose(chain, slot)
        if self._schema is not None and self._is_fault(token):
            if token is None:
                raise DeadEnd
            token, n_tries = draw_without_fault(
                self._grammar, self._grammars.tree, chain, slot, token, self._is_fault
            )
            self.n_refused += n_tries
            if token is None:
                raise DeadEnd
        if token is None or self._vocab.is_eog(token):
            return None
        self._grammar.accept(token)
        if self._schema is not None:
            self._written.data += self._vocab.piece(token)
        return token

    def _choose(self, chain: SamplerChain, slot: Slot) -> int | None:
        token = chain.sample(slot)
        if self._grammar.allows(token) and (not self._vocab.is_control(token) or self._vocab.is_eog(token)):
            return token
        self.n_refused += 1
        drawn, descended = draw_allowed(self._grammar, self._grammars.tree, chain, slot)
        self.n_descended += descended
        return drawn

    def _is_fault(self, token: int | None) -> bool:
        assert self._schema is not None
        if token is None or self._vocab.is_eog(token):
            return self._schema.validate(json.loads(self._written.data)) is not None
        return self._written.is_fault(self._vocab.piece(token))

    def close(self) -> None:
        """Frees the grammar."""
        self._grammar.close()
