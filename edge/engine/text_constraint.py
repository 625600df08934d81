"""The constraint on an answer's whole text: a JSON schema or a GBNF grammar instead of free text."""

from __future__ import annotations

from edge.engine.model import Vocabulary
from edge.engine.sampling import GrammarCache, SamplerChain, draw_allowed
from edge.engine.slot import Slot


class TextConstraint:
    """Chooses tokens of a text that follows a grammar; the text may end where the grammar is complete."""

    def __init__(self, gbnf: str, grammars: GrammarCache, vocab: Vocabulary) -> None:
        self._grammars, self._vocab = grammars, vocab
        self._grammar = grammars.start(gbnf)
        self.n_refused = self.n_descended = 0  # as of `CallConstraint`

    def choose(self, chain: SamplerChain, slot: Slot) -> int | None:
        """The next token, accepted; None where the model ends the text, or the grammar leaves nothing to add."""
        token = chain.sample(slot)
        if not self._grammar.allows(token) or (
            self._vocab.is_control(token) and not self._vocab.is_eog(token)
        ):
            self.n_refused += 1
            drawn, descended = draw_allowed(self._grammar, self._grammars.tree, chain, slot)
            self.n_descended += descended
            if drawn is None:
                return None
            token = drawn
        if self._vocab.is_eog(token):
            return None
        self._grammar.accept(token)
        return token

    def close(self) -> None:
        """Frees the grammar."""
        self._grammar.close()
