"""The check itself: run what is not yet on disk, then compare. One straight line from options to a result.

Prints nothing; progress goes to a callback, the report is made from the result by others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.accuracy.answers import Answer
from edge.accuracy.cases import CaseSet, EvalCase
from edge.accuracy.compare import Distances, TaskComparison, compare_distances, compare_tasks
from edge.accuracy.distance import Positions
from edge.accuracy.errors import CheckError, NotSiblings
from edge.accuracy.metrics import CaseScore, score
from edge.accuracy.runner import Progress, Runner, run_here
from edge.accuracy.siblings import sibling_faults
from edge.accuracy.stages import (
    AnswerStage,
    DistanceStage,
    ScoredText,
    Stage,
    answer_key,
    distance_key,
    positions_of,
)
from edge.accuracy.store import open_results
from edge.accuracy.variants import AnswerOptions, VariantSpec, prompt_tokens
from edge.accuracy.verdict import Criterion, Outcome, Thresholds, judge, overall
from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.engine.intake import examine

_CONTEXT_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What is compared and how. work: the folder of finished items. distances: whether to read both models' logits."""

    reference: VariantSpec
    candidates: tuple[VariantSpec, ...]
    work: Path
    answering: AnswerOptions = field(default_factory=AnswerOptions)
    thresholds: Thresholds = field(default_factory=Thresholds)
    force_compare: bool = False
    without_grammar: bool = True
    distances: bool = True


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One variant's answers and their scores, by whether the grammar held; facts: of the file, for the report."""

    spec: VariantSpec
    answers: dict[bool, list[Answer]]
    scores: dict[bool, list[CaseScore]]
    facts: dict[str, object]

    @property
    def main(self) -> bool:
        """The way of answering that counts: with the grammar, where it can be held."""
        return True in self.scores

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Of this run, forced tokens left out; None where it is not known."""
        answers = self.answers[self.main]
        seconds = sum(answer.decode_s for answer in answers)
        tokens = sum(answer.completion_tokens - answer.forced_tokens for answer in answers)
        return tokens / seconds if seconds and tokens else None


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """A candidate against the reference. tasks: by whether the grammar held, where both have such answers."""

    variant: VariantResult
    tasks: dict[bool, TaskComparison]
    distances: Distances | None
    criteria: tuple[Criterion, ...]
    main: bool  # the way of answering that the verdict is about


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Everything that was found. notes: what a reader must know beside the figures."""

    cases: CaseSet
    options: CheckOptions
    reference: VariantResult
    candidates: tuple[CandidateResult, ...]
    verdict: Outcome
    notes: tuple[str, ...]

    @property
    def variants(self) -> list[VariantResult]:
        """The reference and the candidates."""
        return [self.reference, *(candidate.variant for candidate in self.candidates)]


def check(
    options: CheckOptions,
    cases: CaseSet,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    run: Runner = run_here,
) -> CheckResult:
    """Compares the candidates with the reference on these cases. Raises EdgeError.

    What is already in the work folder is not done again. An interrupt leaves there what was finished.
    """
    _check_comparable(options)
    options = replace(options, answering=_prepare(options, cases.cases))
    progress = _Meter(on_progress, _n_items(options, cases.cases))
    variants = [
        _answer(spec, options, cases.cases, progress, run)
        for spec in (options.reference, *options.candidates)
    ]
    notes = [*_prompt_notes(variants), *_case_notes(cases, variants)]
    reference = variants[0]
    candidates = tuple(
        _compare(variant, reference, options, cases.cases, progress, run) for variant in variants[1:]
    )
    verdict = overall([criterion for candidate in candidates for criterion in candidate.criteria])
    return CheckResult(cases, options, reference, candidates, verdict, tuple(notes))


def _check_comparable(options: CheckOptions) -> None:
    """Raises NotSiblings or CheckError before anything slow."""
    names = [spec.name for spec in (options.reference, *options.candidates)]
    if len(set(names)) < len(names):
        raise CheckError(f"two variants have the same name: {', '.join(names)}")
    ggufs = [spec for spec in (options.reference, *options.candidates) if spec.kind == "gguf"]
    for candidate in ggufs[1:]:
        faults = sibling_faults(Path(ggufs[0].location), Path(candidate.location))
        if faults and not options.force_compare:
            raise NotSiblings(ggufs[0].name, candidate.name, faults)


def _prepare(options: CheckOptions, cases: Sequence[EvalCase]) -> AnswerOptions:
    """The options with the template that all variants get, and a context that holds every prompt and answer."""
    asked = options.answering
    ggufs = [spec for spec in (options.reference, *options.candidates) if spec.kind == "gguf"]
    if not ggufs:
        return asked
    spec = ggufs[0]
    small = ContextOptions(n_ctx=min(_CONTEXT_STEP, asked.n_ctx or _CONTEXT_STEP), n_threads=asked.n_threads)
    with Engine(spec.location, chat_template=asked.template or spec.template, context=small) as engine:
        template, n_ctx_train = engine.chat_template, engine.model.n_ctx_train
        vocab = engine.model.vocab
        longest = max(len(prompt_tokens(template, vocab, asked.request(case))) for case in cases)
    needed = math.ceil((longest + asked.max_tokens + 1) / _CONTEXT_STEP) * _CONTEXT_STEP
    return replace(asked, template=template, n_ctx=asked.n_ctx or min(needed, n_ctx_train))


def _grammars(spec: VariantSpec, options: CheckOptions) -> tuple[bool, ...]:
    if spec.has_grammar:
        return (True, False) if options.without_grammar or _compares_free(options) else (True,)
    return (spec.kind == "endpoint",)


def _compares_free(options: CheckOptions) -> bool:
    return options.reference.kind == "transformers"


def _measures(options: CheckOptions, candidate: VariantSpec) -> bool:
    return options.distances and options.reference.has_logits and candidate.kind == "gguf"


def _n_items(options: CheckOptions, cases: Sequence[EvalCase]) -> int:
    specs = (options.reference, *options.candidates)
    n_answers = sum(len(_grammars(spec, options)) for spec in specs) * len(cases)
    n_texts = len(cases) + sum(bool(case.expected) for case in cases)
    return n_answers + n_texts * sum(_measures(options, spec) for spec in options.candidates)


class _Meter:
    """Counts finished items over all stages."""

    def __init__(self, on_progress: Callable[[Progress], None], n_total: int) -> None:
        self._on_progress, self._n_total, self._n_before = on_progress, n_total, 0

    def stage(self, stage: Stage, n_done: int) -> Callable[[], None]:
        """Starts a stage of which n_done items were there already; the result is to be called for each new one."""
        n_items, before, done, fresh = len(stage.items), self._n_before, n_done, 0
        self._n_before += n_items

        def tell() -> None:
            self._on_progress(Progress(stage.name, done, n_items, before + done, self._n_total, fresh))

        def finished() -> None:
            nonlocal done, fresh
            done += 1
            fresh += 1
            tell()

        tell()
        return finished


def _run(stage: Stage, options: CheckOptions, progress: _Meter, run: Runner) -> dict[str, dict[str, object]]:
    """All results of a stage, those on disk included."""
    with open_results(options.work, stage) as results:
        pending = [item for item in stage.items if item.key not in results.records]
        finished = progress.stage(stage, len(stage.items) - len(pending))
        if pending:
            for item, record in run(stage, pending):
                results.add(item.key, record)
                finished()
        return results.records


def _answer(
    spec: VariantSpec, options: CheckOptions, cases: Sequence[EvalCase], progress: _Meter, run: Runner
) -> VariantResult:
    stage = AnswerStage(spec, options.answering, tuple(cases), _grammars(spec, options))
    records = _run(stage, options, progress, run)
    answers = {
        grammar: [Answer.from_json(records[answer_key(case, grammar)]) for case in cases]
        for grammar in stage.grammars
    }
    scores = {
        grammar: [score(case, answer) for case, answer in zip(cases, of_grammar, strict=True)]
        for grammar, of_grammar in answers.items()
    }
    facts = examine(Path(spec.location)).facts if spec.kind == "gguf" else {}
    return VariantResult(spec, answers, scores, facts)


def _compare(
    variant: VariantResult,
    reference: VariantResult,
    options: CheckOptions,
    cases: Sequence[EvalCase],
    progress: _Meter,
    run: Runner,
) -> CandidateResult:
    shared = [
        grammar for grammar in (True, False) if grammar in variant.scores and grammar in reference.scores
    ]
    pairs = {grammar: (reference.scores[grammar], variant.scores[grammar]) for grammar in shared}
    if not pairs:  # an endpoint against a checkpoint without a grammar: each in the one way it has
        shared, pairs = [True], {True: (reference.scores[reference.main], variant.scores[variant.main])}
    tasks = {grammar: compare_tasks(*pair) for grammar, pair in pairs.items()}
    distances = None
    if _measures(options, variant.spec):
        distances = _measure(variant.spec, reference, options, cases, progress, run)
    criteria = judge(
        variant.spec.name,
        options.thresholds,
        tasks[shared[0]],
        len(cases),
        distances,
        same_file=variant.spec.kind == "gguf" and variant.spec.identity() == reference.spec.identity(),
    )
    return CandidateResult(variant, tasks, distances, tuple(criteria), shared[0])


def _measure(
    spec: VariantSpec,
    reference: VariantResult,
    options: CheckOptions,
    cases: Sequence[EvalCase],
    progress: _Meter,
    run: Runner,
) -> Distances | None:
    texts = []
    for case, answer in zip(cases, reference.answers[reference.main], strict=True):
        texts.append(ScoredText(case, "reference", answer))
        if case.expected:
            texts.append(ScoredText(case, "expected", answer))
    stage = DistanceStage(reference.spec, spec, options.answering, tuple(texts))
    records = _run(stage, options, progress, run)
    positions: dict[str, dict[str, Positions]] = {"reference": {}, "expected": {}}
    n_skipped = 0
    for text in texts:
        found = positions_of(records[distance_key(text)])
        if found is None:
            n_skipped += 1
        else:
            positions[text.kind][text.case.id] = found
    return compare_distances(positions, n_skipped)


def _prompt_notes(variants: Sequence[VariantResult]) -> list[str]:
    """Raises CheckError if two variants were given different tokens for the same case."""
    notes: list[str] = []
    known = [variant for variant in variants if variant.spec.kind != "endpoint"]
    for variant in known[1:]:
        pairs = zip(known[0].answers[known[0].main], variant.answers[variant.main], strict=True)
        differing = sum(
            one.prompt_digest != other.prompt_digest
            for one, other in pairs
            if one.prompt_digest and other.prompt_digest
        )
        if differing:
            raise CheckError(
                f"{variant.spec.name} got other prompt tokens than {known[0].spec.name} in {differing} cases; "
                "their vocabularies differ"
            )
    if len(known) < len(variants):
        notes.append("an endpoint renders prompts itself: that they are the same cannot be checked")
    return notes


def _case_notes(cases: CaseSet, variants: Sequence[VariantResult]) -> list[str]:
    notes = []
    if cases.skipped:
        reasons = dict.fromkeys(reason for _, reason in cases.skipped)
        notes.append(f"{len(cases.skipped)} lines were left out: {'; '.join(reasons)}")
    for variant in variants:
        failed = [answer for answer in variant.answers[variant.main] if answer.error]
        if failed:
            notes.append(f"{variant.spec.name} could not be asked {len(failed)} cases: {failed[0].error}")
    return notes
