"""How much of a check's time is the engine's own work, and how much is reading, judging, storing, comparing?

    python -m benchmarks.check_overhead FOLDER [--cases 12] [--max-tokens 64] [--threads 2] [--repeat 3]

FOLDER: where `benchmarks.check_models` wrote the siblings (made if they are not there). In turn and repeated:
  answers    the engine alone (prompts tokenized once before, replies thrown away) against the check's own stage
  distances  both models decoding the same tokens, logits made and not looked at, against the check's own stage
Prints the ratio of the medians: 1.0 is no overhead, at least 0.9 is asked. Exit code 1 below that.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.check_models import make_siblings
from edge.accuracy.answers import Answer
from edge.accuracy.cases import read_cases
from edge.accuracy.forced_texts import force
from edge.accuracy.stages import AnswerStage, DistanceStage, ScoredText, Stage
from edge.accuracy.store import open_results
from edge.accuracy.variants import AnswerOptions, VariantSpec, prompt_tokens
from edge.engine.engine import Engine
from edge.engine.scoring import Scorer

CASES = Path(__file__).parents[1] / "edge/examples/check/cases.jsonl"
LEAST = 0.9


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run_stage(stage: Stage) -> float:
    """The check's own way, models already loaded, results going to disk."""
    with (
        tempfile.TemporaryDirectory() as folder,
        stage.open() as work,
        open_results(Path(folder), stage) as results,
    ):
        return seconds(lambda: [results.add(item.key, work(item.work)) for item in stage.items])


def engine_alone(spec: VariantSpec, options: AnswerOptions, stage: AnswerStage) -> float:
    with Engine(spec.location, chat_template=options.template, context=options.context()) as engine:
        requests = [options.request(case) for case in stage.cases]
        return seconds(lambda: [engine.chat(request) for request in requests])


def decoding_alone(
    one: VariantSpec, other: VariantSpec, options: AnswerOptions, stage: DistanceStage
) -> float:
    with (
        Scorer(one.location, context=options.context()) as a,
        Scorer(other.location, context=options.context()) as b,
    ):
        vocab, template = a.model.vocab, options.template
        assert template is not None
        texts = []
        for text in stage.texts:
            prompt = prompt_tokens(template, vocab, options.request(text.case))
            forced = force(prompt, text.reference.text(), vocab, ends=True, n_ctx=a.n_ctx)
            assert forced is not None
            texts.append(forced)

        def decode() -> None:
            for text in texts:
                for scorer in (a, b):
                    for _ in scorer.logits(text.tokens[:-1], text.n_prompt - 1):
                        pass

        return seconds(decode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    reference, candidate = (
        VariantSpec(name=path.stem, kind="gguf", location=str(path))
        for path in make_siblings(args.folder, args.threads)[:2]
    )
    cases = read_cases(CASES, limit=args.cases).cases
    with Engine(reference.location) as engine:
        template = engine.chat_template
    options = AnswerOptions(template=template, n_ctx=2048, n_threads=args.threads, max_tokens=args.max_tokens)
    answers = AnswerStage(candidate, options, cases, (True,))
    texts = tuple(
        ScoredText(case, "reference", Answer(content="A word. " * (args.max_tokens // 3))) for case in cases
    )
    distances = DistanceStage(reference, candidate, options, texts)
    found: dict[str, list[tuple[float, float]]] = {"answers": [], "distances": []}
    for _ in range(args.repeat):
        found["answers"].append((engine_alone(candidate, options, answers), run_stage(answers)))
        alone = decoding_alone(reference, candidate, options, distances)
        found["distances"].append((alone, run_stage(distances)))
    worst = 1.0
    for name, pairs in found.items():
        alone, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
        worst = min(worst, alone / whole)
        print(f"{name}: engine alone {alone:.2f} s, check {whole:.2f} s, ratio {alone / whole:.3f}")
    print(f"asked: {LEAST}")
    return int(worst < LEAST)


if __name__ == "__main__":
    sys.exit(main())
