"""The unconverted checkpoint as the reference. Needs torch and transformers: pytest -m oracle tests/accuracy"""

from __future__ import annotations

import pytest

from edge.accuracy.check import check
from edge.accuracy.document import to_document
from edge.accuracy.errors import CheckError
from edge.accuracy.variants import VariantSpec
from edge.chat.template import ChatTemplate
from tests.accuracy.conftest import TEMPLATE, gguf_spec
from tests.accuracy.test_check import ANSWERING, options
from tests.convert.support import plan_of, write_plan
from tests.convert.tiny_checkpoints import TINY, write_tiny


def test_without_torch_it_says_so(tmp_path, few_cases, tiny_files, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    reference = VariantSpec(name="checkpoint", kind="transformers", location=str(folder))
    with pytest.raises(CheckError, match="needs torch and transformers"):
        check(options(tmp_path, reference, gguf_spec(tiny_files["f32"])), few_cases)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["llama", "qwen35"])
def test_a_checkpoint_in_float32_is_what_its_float32_file_is_and_bf16_costs_a_little(
    name, tmp_path, few_cases
):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    kind = next(tiny for tiny in TINY if tiny.startswith(name))
    folder = write_tiny(tmp_path / "checkpoint", TINY[kind])
    template = ChatTemplate(TEMPLATE, "test")
    files = []
    for stored_as in ("F32", "BF16"):
        path = write_plan(
            tmp_path / f"{stored_as}.gguf", folder, plan_of(folder), stored_as, pre=TINY[kind].pre
        )
        files.append(VariantSpec(name=stored_as, kind="gguf", location=str(path), template=template))
    reference = VariantSpec(name="checkpoint", kind="transformers", location=str(folder))
    exact = type(ANSWERING)(n_threads=1, max_tokens=12, kv_type="f32", template=template)
    result = check(options(tmp_path, reference, *files, answering=exact), few_cases)
    same, rounded = (candidate.distances.everywhere for candidate in result.candidates)
    assert same.kld_mean < 1e-5
    assert same.same_top > 0.97  # flash attention rounds otherwise than the eager sums
    assert rounded.kld_mean > same.kld_mean
    written = [[answer.text() for answer in variant.answers[False]] for variant in result.variants]
    assert written[0] == written[1]
    assert any(written[0])
    document = to_document(result)
    assert document["variants"][0]["without_grammar"] == document["variants"][0]["metrics"]
