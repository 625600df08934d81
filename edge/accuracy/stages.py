"""The work of a check, cut into items that can be done anywhere in any order: an answer to a case, a text's distances.

A stage says what has to be loaded (`open`) and what is then done with each item. Stages and items can be pickled, so
that the same work runs here or on a cluster. Nothing here keeps results or knows of progress.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from edge.accuracy.answers import Answer
from edge.accuracy.cases import EvalCase
from edge.accuracy.digests import digest_of
from edge.accuracy.distance import Positions, compare_texts
from edge.accuracy.forced_texts import TextKind, answer_text, force
from edge.accuracy.variants import AnswerOptions, VariantSpec, open_variant, prompt_tokens
from edge.chat.template import ChatTemplate
from edge.engine.scoring import Logits, Scorer

Record: TypeAlias = dict[str, Any]  # JSON
Work: TypeAlias = Callable[[Any], Record]


class Stage(Protocol):
    """name: for people and file names. settings: what the results depend on, besides the item."""

    @property
    def name(self) -> str: ...
    @property
    def items(self) -> Sequence[Item]: ...
    def settings(self) -> Record: ...
    def open(self) -> AbstractContextManager[Work]: ...


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of work. key: unique in its stage, changes when the work does."""

    key: str
    work: Any


@dataclass(frozen=True, slots=True)
class AnswerStage:
    """All cases through one variant, with the grammar and, where there is one, without."""

    spec: VariantSpec
    options: AnswerOptions
    cases: tuple[EvalCase, ...]
    grammars: tuple[bool, ...]

    @property
    def name(self) -> str:
        return f"answers-{self.spec.name}"

    @property
    def items(self) -> Sequence[Item]:
        return [
            Item(answer_key(case, grammar), (case, grammar))
            for grammar in self.grammars
            for case in self.cases
        ]

    def settings(self) -> Record:
        """The variant's content and how it is asked; threads do not change an answer."""
        asked = dataclasses.asdict(dataclasses.replace(self.options, n_threads=None))
        return {"variant": self.spec.identity(), "asked": asked}

    @contextmanager
    def open(self) -> Iterator[Work]:
        with open_variant(self.spec, self.options) as variant:
            yield lambda work: variant.answer(work[0], grammar=work[1]).to_json()


def answer_key(case: EvalCase, grammar: bool) -> str:
    """The key of a case's answer."""
    return f"{case.id}|{'grammar' if grammar else 'free'}|{case.digest()}"


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A case's answer that both models read. reference: what the reference answered."""

    case: EvalCase
    kind: TextKind
    reference: Answer


@dataclass(frozen=True, slots=True)
class DistanceStage:
    """Reference and candidate side by side over the same texts, both loaded, a chunk of logits at a time."""

    reference: VariantSpec
    candidate: VariantSpec
    options: AnswerOptions
    texts: tuple[ScoredText, ...]

    @property
    def name(self) -> str:
        return f"distances-{self.candidate.name}"

    @property
    def items(self) -> Sequence[Item]:
        return [Item(distance_key(text), text) for text in self.texts]

    def settings(self) -> Record:
        """Both models' content, and what makes their prompts."""
        asked = dataclasses.asdict(dataclasses.replace(self.options, n_threads=None))
        return {
            "reference": self.reference.identity(),
            "candidate": self.candidate.identity(),
            "asked": asked,
        }

    @contextmanager
    def open(self) -> Iterator[Work]:
        with ExitStack() as stack:
            candidate = stack.enter_context(_open_scorer(self.candidate, self.options))
            reference = stack.enter_context(_reference_scorer(self.reference, candidate, self.options))
            assert self.options.template is not None
            template = self.options.template
            yield lambda text: _distances(text, reference, candidate, template, self.options)


def distance_key(text: ScoredText) -> str:
    """The key of a text's distances. The reference's answer is part of it: another answer, other tokens."""
    answer = digest_of([text.reference.text(), text.reference.finish_reason])
    expected = digest_of([[call.name, str(call.arguments)] for call in text.case.expected])
    return (
        f"{text.case.id}|{text.kind}|{text.case.digest()}|{answer if text.kind == 'reference' else expected}"
    )


class LogitSource(Protocol):
    """A model whose logits can be read along given tokens."""

    def logits(self, tokens: Sequence[int], first: int = 0) -> Iterator[Logits]: ...


def _open_scorer(spec: VariantSpec, options: AnswerOptions) -> Scorer:
    return Scorer(Path(spec.location), context=options.context())


@contextmanager
def _reference_scorer(spec: VariantSpec, candidate: Scorer, options: AnswerOptions) -> Iterator[LogitSource]:
    if spec.kind == "transformers":
        from edge.accuracy.transformers_model import TransformersModel

        yield TransformersModel(spec.location, candidate.n_vocab)
        return
    with _open_scorer(spec, options) as scorer:
        yield scorer


def _distances(
    text: ScoredText,
    reference: LogitSource,
    candidate: Scorer,
    template: ChatTemplate,
    options: AnswerOptions,
) -> Record:
    """The positions of one text, columns by name; `skipped` where there is nothing to compare."""
    vocab = candidate.model.vocab
    prompt = prompt_tokens(template, vocab, options.request(text.case))
    written = answer_text(text.kind, text.case, text.reference)
    if text.kind == "expected" and not written:
        return {"skipped": "no expected call"}
    ends = text.kind == "expected" or text.reference.finish_reason != "length"
    forced = force(prompt, written, vocab, ends=ends, n_ctx=candidate.n_ctx)
    if forced is None:
        return {"skipped": "no answer, or none that fits the context"}
    fed, first = forced.tokens[:-1], forced.n_prompt - 1
    positions = compare_texts(
        reference.logits(fed, first), candidate.logits(fed, first), forced.targets, forced.in_call
    )
    return dataclasses.asdict(positions)


def positions_of(record: Record) -> Positions | None:
    """The inverse of what a distance stage stores; None for a text that was skipped."""
    if "skipped" in record:
        return None
    return Positions(**{name: tuple(column) for name, column in record.items()})
