from __future__ import annotations

import dataclasses
import json

import pytest

from edge.accuracy.cases import CaseSet
from edge.accuracy.check import CheckOptions, check
from edge.accuracy.document import to_document
from edge.accuracy.errors import CheckError, NotSiblings
from edge.accuracy.runner import run_here
from edge.accuracy.siblings import sibling_faults
from edge.accuracy.stages import AnswerStage, positions_of
from edge.accuracy.variants import AnswerOptions
from edge.accuracy.verdict import Thresholds
from edge.engine.model import Model
from tests.accuracy.conftest import OWN_TEMPLATE, endpoint_spec, gguf_spec, question_of, weather
from tests.accuracy.conftest import completion as completed
from tests.tiny_gguf import TinyShape, write_gguf

ANSWERING = AnswerOptions(n_threads=1, max_tokens=12)


def options(tmp_path, reference, *candidates, **changes):
    values = {"answering": ANSWERING, "work": tmp_path / "work", **changes}
    return CheckOptions(reference=reference, candidates=candidates, **values)


@pytest.fixture(scope="module")
def tiny_options(tiny_files, tmp_path_factory):
    return options(
        tmp_path_factory.mktemp("check"), gguf_spec(tiny_files["f32"]), gguf_spec(tiny_files["q8_0"]),
        gguf_spec(tiny_files["q4_0"]),
    )  # fmt: skip


HALF_A_LINE = '["half a li'  # what a power cut leaves


def stored(work):
    """All results on disk, times left out."""
    found = {}
    for path in work.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            if line == HALF_A_LINE:
                continue
            key, record = json.loads(line)
            assert (path.name, key) not in found, "nothing is done twice"
            found[path.name, key] = {k: v for k, v in record.items() if not k.endswith("_s")}
    return found


class Broken(Exception):
    """Stands for whatever ends a run."""


def run_until(n_items):
    """Does n_items and then breaks."""
    done = 0

    def run(stage, items):
        nonlocal done
        for result in run_here(stage, items):
            if done == n_items:
                raise Broken
            done += 1
            yield result

    return run


def run_backwards(stage, items):
    yield from run_here(stage, list(reversed(items)))


def test_a_whole_check_has_every_figure(tiny_options, few_cases, tmp_path):
    told = []
    result = check(dataclasses.replace(tiny_options, work=tmp_path / "work"), few_cases, told.append)
    document = to_document(result)
    json.dumps(document, allow_nan=False)
    assert document["cases"] == 4
    assert [variant["name"] for variant in document["variants"]] == ["tiny-f32", "tiny-q8_0", "tiny-q4_0"]
    assert {row["metric"] for row in document["differences"]} >= {
        "tool_selection_f1", "precision", "recall", "json_validity", "schema_validity", "argument_match",
        "no_tool_accuracy",
    }  # fmt: skip
    fine, coarse = document["distribution"]
    assert 0 < fine["kld_mean"] < coarse["kld_mean"]
    assert fine["same_top"] > coarse["same_top"]
    assert fine["in_calls"]["n_tokens"] < fine["n_tokens"]
    assert (told[-1].overall_done, told[-1].overall_total) == (3 * 8 + 2 * 6, 3 * 8 + 2 * 6)


def test_the_order_of_the_cases_does_not_matter_to_the_bit(tiny_options, few_cases, tmp_path):
    one = check(dataclasses.replace(tiny_options, work=tmp_path / "one"), few_cases)
    shuffled = CaseSet(few_cases.path, tuple(few_cases.cases[i] for i in (2, 0, 3, 1)))
    check(dataclasses.replace(tiny_options, work=tmp_path / "two"), shuffled, run=run_backwards)
    alone = CaseSet(few_cases.path, few_cases.cases[2:3])
    check(dataclasses.replace(tiny_options, work=tmp_path / "three", answering=one.options.answering), alone)
    first, second, third = (stored(tmp_path / name) for name in ("one", "two", "three"))
    assert first == second
    assert first.items() >= third.items()


def test_an_interrupted_check_goes_on_and_finds_the_same(tiny_options, few_cases, tmp_path):
    whole = dataclasses.replace(tiny_options, work=tmp_path / "whole")
    parts = dataclasses.replace(tiny_options, work=tmp_path / "parts")
    wanted = to_document(check(whole, few_cases))
    for n_items in (3, 15, 10):
        with pytest.raises(Broken):
            check(parts, few_cases, run=run_until(n_items))
    assert len(stored(tmp_path / "parts")) == 28
    with next((tmp_path / "parts").glob("answers-tiny-f32*")).open("a") as file:
        file.write(HALF_A_LINE)
    found = to_document(check(parts, few_cases))
    assert stored(tmp_path / "parts") == stored(tmp_path / "whole")
    assert without_speed(found) == without_speed(wanted)


def without_speed(document):
    variants = [
        {k: v for k, v in variant.items() if k != "decode_tokens_per_s"} for variant in document["variants"]
    ]
    return {**document, "variants": variants}


def test_a_finished_check_does_nothing_again(tiny_options, few_cases, tmp_path):
    again = dataclasses.replace(tiny_options, work=tmp_path / "work")
    check(again, few_cases)
    check(again, few_cases, run=run_until(0))


@pytest.mark.parametrize("changes", [{"max_tokens": 11}, {"kv_type": "f32"}])
def test_other_settings_do_not_find_these_results(tiny_options, few_cases, tmp_path, changes):
    check(dataclasses.replace(tiny_options, work=tmp_path / "work"), few_cases)
    other = dataclasses.replace(
        tiny_options, work=tmp_path / "work", answering=dataclasses.replace(ANSWERING, **changes)
    )
    with pytest.raises(Broken):
        check(other, few_cases, run=run_until(0))


def test_the_size_of_the_batch_changes_figures_by_rounding_alone(tiny_files, few_cases):
    import numpy as np

    from edge.accuracy.distance import compare_texts
    from edge.engine.context import ContextOptions
    from edge.engine.scoring import Scorer

    tokens = list(b"one two three four five six seven eight nine ten eleven twelve thirteen")
    found = []
    for n_rows in (1, 7, 64):
        context = ContextOptions(n_ctx=256, n_threads=1)
        with (
            Scorer(tiny_files["f32"], context=context, rows_at_once=n_rows) as one,
            Scorer(tiny_files["q4_0"], context=context, rows_at_once=n_rows) as other,
        ):
            found.append(
                compare_texts(
                    one.logits(tokens[:-1], 9), other.logits(tokens[:-1], 9), tokens[10:], [False] * 61
                )
            )
    means = [np.mean(positions.kld) for positions in found]
    assert means == pytest.approx([means[0]] * 3, rel=0.02)
    assert means[0] > 1e-4


def test_a_file_against_itself_passes_whatever_the_number_of_cases(tiny_files, few_cases, tmp_path):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny_files["f32"].read_bytes())
    result = check(options(tmp_path, gguf_spec(tiny_files["f32"]), gguf_spec(copy)), few_cases)
    assert result.verdict == "pass"
    assert result.candidates[0].distances.everywhere.is_identical


def test_few_cases_cannot_tell(tiny_options, few_cases, tmp_path):
    assert check(dataclasses.replace(tiny_options, work=tmp_path / "work"), few_cases).verdict == "undecided"


def test_a_distance_over_the_threshold_fails(tiny_options, few_cases, tmp_path):
    strict = Thresholds(max_f1_drop=None, max_kld=1e-9)
    assert (
        check(dataclasses.replace(tiny_options, work=tmp_path / "work", thresholds=strict), few_cases).verdict
        == "fail"
    )


def test_siblings_have_no_faults(tiny_files):
    assert sibling_faults(tiny_files["f32"], tiny_files["q8_0"]) == []
    assert sibling_faults(tiny_files["q4_0"], tiny_files["f32"]) == []


@pytest.mark.parametrize(
    ("shape", "change", "said"),
    [
        (TinyShape("qwen3"), {}, "the architecture is 'qwen3', not 'llama'"),
        (TinyShape(n_vocab=600), {}, "the vocabulary has 600 entries, not 512"),
        (TinyShape(), {"llama.rope.freq_base": 5e5}, "llama.rope.freq_base is 500000"),
        (TinyShape(n_layer=3), {}, "llama.block_count is 3, not 2"),
    ],
)
def test_what_is_no_sibling_is_refused(tiny_files, tmp_path, shape, change, said):
    other = write_gguf(tmp_path / "other.gguf", shape, change={**OWN_TEMPLATE, **change})
    assert said in "; ".join(sibling_faults(tiny_files["f32"], other))


def test_other_weights_of_the_same_shape_are_told(tiny_files):
    (fault,) = sibling_faults(tiny_files["q8_0"], tiny_files["stranger"])
    assert fault.startswith("the weights of token_embd.weight are others")
    (fault,) = sibling_faults(tiny_files["f32"], tiny_files["stranger"])
    assert "holds other numbers" in fault


def test_another_source_is_another_model(tmp_path):
    one, other = (
        write_gguf(tmp_path / f"{name}.gguf", change={**OWN_TEMPLATE, "smoltools_edge.source": name})
        for name in ("a", "b")
    )
    assert sibling_faults(one, other) == ["it was made from 'b', not 'a'"]


def test_a_stranger_is_compared_only_by_force(tiny_files, few_cases, tmp_path):
    asked = options(tmp_path, gguf_spec(tiny_files["f32"]), gguf_spec(tiny_files["stranger"]))
    with pytest.raises(NotSiblings, match="--force-compare"):
        check(asked, few_cases)
    assert not asked.work.exists()
    found = check(dataclasses.replace(asked, force_compare=True), few_cases)
    assert found.candidates[0].distances.everywhere.kld_mean > 0.1


def test_a_case_that_does_not_fit_the_context_is_noted_and_wrong(tiny_files, few_cases, tmp_path):
    long = dataclasses.replace(
        few_cases.cases[0], id="long", messages=({"role": "user", "content": "x" * 900},)
    )
    cases = CaseSet(few_cases.path, (long, few_cases.cases[1]))
    asked = options(tmp_path, gguf_spec(tiny_files["f32"]), gguf_spec(tiny_files["q8_0"]),
                    answering=dataclasses.replace(ANSWERING, n_ctx=128))  # fmt: skip
    result = check(asked, cases)
    assert not result.reference.scores[True][0].right
    assert any("could not be asked 1 cases" in note for note in result.notes)


def test_every_variant_is_given_the_same_tokens(tiny_options, few_cases, tmp_path):
    result = check(dataclasses.replace(tiny_options, work=tmp_path / "work"), few_cases)
    digests = [
        [a.prompt_digest for a in variant.answers[grammar]]
        for variant in result.variants
        for grammar in (True, False)
    ]
    assert all(digests[0])
    assert digests == [digests[0]] * 6
    counts = [[a.prompt_tokens for a in variant.answers[True]] for variant in result.variants]
    assert counts == [[len("question c0")] * 4] * 3


def test_the_answers_own_tokens_are_scored(tiny_options, few_cases, tmp_path):
    """As many positions as its text has tokens, and one more where it ended by itself."""
    result = check(dataclasses.replace(tiny_options, work=tmp_path / "work"), few_cases)
    case, answer = few_cases.cases[0], result.reference.answers[True][0]
    (record,) = [
        record for (name, key), record in stored(tmp_path / "work").items()
        if name.startswith("distances-tiny-q8_0") and key.startswith(f"{case.id}|reference")
    ]  # fmt: skip
    with Model(tiny_options.reference.location) as model:
        n_tokens = len(model.vocab.tokenize(answer.text()))
    assert len(positions_of(record).kld) == n_tokens + (answer.finish_reason != "length")


def right(request):
    case = question_of(request)
    return 200, completed(("get_weather", {"city": "Rome"})) if int(case[1:]) % 2 else completed(content="no")


def always_wrong(request):
    return 200, completed(("get_time", {"zone": "UTC"}))


@pytest.fixture
def many_cases(few_cases):
    from edge.accuracy.cases import EvalCase

    def build(i) -> EvalCase:
        base = few_cases.cases[i % 2]
        return dataclasses.replace(
            base, id=f"c{i}", messages=({"role": "user", "content": f"question c{i}"},)
        )

    return CaseSet(few_cases.path, tuple(build(i) for i in range(40)))


def test_a_worse_candidate_fails_and_its_flips_are_listed(serve, many_cases, tmp_path):
    good, bad = endpoint_spec(serve(right), "good"), endpoint_spec(serve(always_wrong), "bad")
    result = check(options(tmp_path, good, bad), many_cases)
    document = to_document(result)
    assert result.verdict == document["verdict"] == "fail"
    assert document["variants"][0]["metrics"]["tool_selection_f1"] == 1.0
    assert document["variants"][1]["metrics"]["no_tool_accuracy"] == 0.0
    (flips,) = document["flips"]
    assert (flips["worse"], flips["better"]) == (40, 0)
    assert flips["mcnemar_p"] < 1e-9
    assert len(flips["cases"]) == 40
    assert "get_time" in flips["cases"][0]["candidate"]["calls"][0]
    assert document["distribution"] == []
    assert document["variants"][1]["without_grammar"] is None


def test_a_better_candidate_does_not_fail(serve, many_cases, tmp_path):
    good, bad = endpoint_spec(serve(right), "good"), endpoint_spec(serve(always_wrong), "bad")
    assert check(options(tmp_path, bad, good), many_cases).verdict != "fail"


def test_a_file_is_compared_with_an_endpoint(serve, tiny_files, few_cases, tmp_path):
    server = serve(right)
    result = check(
        options(tmp_path, endpoint_spec(server, "server"), gguf_spec(tiny_files["q8_0"])), few_cases
    )
    assert to_document(result)["variants"][0]["metrics"]["case_accuracy"] == 1.0
    assert len(server.requests) == 4
    assert any("cannot be checked" in note for note in result.notes)


def test_two_variants_of_one_name_are_refused(tiny_files, few_cases, tmp_path):
    spec = gguf_spec(tiny_files["f32"])
    with pytest.raises(CheckError, match="same name"):
        check(options(tmp_path, spec, spec), few_cases)


def test_a_work_folder_that_cannot_be_written_is_said(tiny_options, few_cases, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CheckError, match="the work folder"):
        check(dataclasses.replace(tiny_options, work=file), few_cases)


def test_nothing_of_the_case_before_is_used_again(few_cases):
    assert not ANSWERING.request(few_cases.cases[0]).cache_prompt


def test_stages_can_be_sent_elsewhere(tiny_options, few_cases):
    import pickle

    stage = AnswerStage(tiny_options.reference, ANSWERING, few_cases.cases, (True,))
    assert pickle.loads(pickle.dumps(stage)) == stage


def test_half_a_surrogate_pair_in_an_answer_ends_nothing(serve, few_cases, tmp_path):
    def answer(request):
        return 200, completed(("get_weather", {"city": "\ud800"}), content="\udc00")

    one, other = (endpoint_spec(serve(answer), name) for name in ("one", "other"))
    result = check(options(tmp_path, one, other), few_cases)
    json.dumps(to_document(result), ensure_ascii=False).encode()


def test_expected_calls_are_forced_in_their_trained_form(few_cases):
    from edge.accuracy.forced_texts import expected_text

    name, arguments = weather("Rome")
    body = json.dumps({"name": name, "arguments": arguments})
    assert expected_text(few_cases.cases[1]) == f"<tool_call>\n{body}\n</tool_call>"
    assert expected_text(few_cases.cases[0]) == ""
