"""What is here is listed and removed; nothing else is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge.errors import CatalogueError
from edge.models.folders import models_dir
from edge.models.installed import remove
from edge.models.listing import list_models
from edge.models.store import resolve
from tests.models.conftest import CONTENT, PATH, REPO, SIZE
from tests.tiny_gguf import write_gguf


def pull(ref):
    return resolve(ref, lambda line: None).path


def own(name, *quantizations):
    paths = [models_dir() / name / f"{name}-{q}.gguf" for q in quantizations]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        path.write_bytes(CONTENT)
    return paths


def rows(name):
    return [row.to_json() for row in list_models() if row.name == name]


class TestRemove:
    def test_one_quantization_goes_and_the_other_stays(self, hub):
        q4, q8 = pull(f"{REPO}:Q4_K_M"), pull(f"{REPO}:Q8_0")
        removed = remove(f"{REPO}:q4_k_m")
        assert (removed.paths, removed.freed_bytes) == ((q4,), SIZE)
        assert not os.path.lexists(q4)
        assert q8.read_bytes() == CONTENT * 2
        assert [path.name for path in (q8.parents[2] / "blobs").iterdir()] == [q8.resolve().name]

    def test_a_model_goes_whole_with_its_half_fetched_files(self, hub, cache):
        pull(f"{REPO}:Q4_K_M")
        pull(f"{REPO}:Q8_0")
        folder = cache / "models--tiny--model-GGUF"
        (folder / "blobs" / "abc.incomplete").write_bytes(b"half")
        assert remove("tiny/model").freed_bytes == 3 * SIZE + 4
        assert not folder.exists()
        assert not (cache / ".locks" / folder.name).exists()

    def test_other_files_of_the_repository_stay(self, hub, cache):
        path = pull(REPO)
        readme = path.parent / "README.md"
        readme.write_text("# tiny")
        remove(REPO)
        assert readme.exists()
        assert not os.path.lexists(path)

    def test_older_versions_go_too(self, hub, cache):
        old = pull(REPO)
        hub.repos[REPO][PATH] = CONTENT[::-1]
        hub.commit = "f" * 40
        new = resolve(REPO, lambda line: None, refresh=True).path
        assert old != new
        assert remove(REPO).freed_bytes == 2 * SIZE
        assert not (cache / "models--tiny--model-GGUF").exists()

    def test_a_content_that_repositories_share_stays_where_it_is(self, hub, cache):
        path = pull(REPO)
        shared = cache / "blobs" / "ab" / "abcd"
        shared.parent.mkdir(parents=True)
        blob = path.resolve()
        blob.rename(shared)
        blob.symlink_to(shared)
        assert path.read_bytes() == CONTENT
        assert remove(REPO).freed_bytes == 0
        assert shared.exists()
        assert not blob.is_symlink()

    @pytest.mark.parametrize("relative", [False, True])
    def test_a_user_s_file_that_was_linked_into_the_cache_stays(self, hub, cache, tmp_path, relative):
        path = pull(REPO)
        mine = tmp_path / "mine.gguf"
        mine.write_bytes(CONTENT)
        path.unlink()
        path.symlink_to(os.path.relpath(mine, path.parent) if relative else mine)
        assert remove(REPO).freed_bytes == 0
        assert mine.exists()
        assert not path.is_symlink()

    def test_a_content_with_two_names_is_freed_with_both(self, hub):
        hub.repos[REPO]["copy-Q4_0.gguf"] = CONTENT
        first, second = pull(f"{REPO}:Q4_K_M"), pull(f"{REPO}:Q4_0")
        assert first.resolve() == second.resolve()
        assert remove(f"{REPO}:Q4_K_M").freed_bytes == SIZE
        assert not os.path.lexists(second)

    def test_a_half_fetched_file_that_is_being_fetched_stays(self, hub, cache):
        from filelock import FileLock

        pull(REPO)
        half = cache / "models--tiny--model-GGUF" / "blobs" / "abc.incomplete"
        half.write_bytes(b"half")
        with FileLock(cache / ".locks" / "models--tiny--model-GGUF" / "abc.lock"):
            remove(REPO)
        assert half.exists()

    def test_half_a_file_alone_can_be_removed(self, hub, cache):
        half = cache / "models--tiny--model-GGUF" / "blobs" / "abc.incomplete"
        half.parent.mkdir(parents=True)
        half.write_bytes(b"half")
        assert remove(REPO).freed_bytes == 4
        assert not half.exists()

    def test_files_of_our_own_folder_go(self, cache):
        q8, bf16 = own("smol-tools-4b", "q8_0", "bf16")
        assert remove("smol-tools-4b:Q8_0").paths == (q8,)
        assert bf16.exists()
        assert remove("smol-tools-4b").paths == (bf16,)
        assert not bf16.parent.exists()

    def test_what_else_lies_in_the_folder_stays(self, cache):
        [path] = own("mine", "q8_0")
        note = path.with_name("notes.txt")
        note.write_text("mine")
        remove("mine")
        assert note.exists()

    def test_a_path_is_removed_only_inside_the_folders(self, hub, cache, tmp_path):
        mine = tmp_path / "model-Q8_0.gguf"
        mine.write_bytes(CONTENT)
        with pytest.raises(CatalogueError, match="delete a file of your own yourself"):
            remove(str(mine))
        assert mine.exists()
        path = pull(REPO)
        assert remove(str(path)).paths == (path,)

    def test_a_link_to_a_user_s_file_goes_and_the_file_stays(self, cache, tmp_path):
        mine = tmp_path / "model.gguf"
        mine.write_bytes(CONTENT)
        [path] = own("mine", "q8_0")
        path.unlink()
        path.symlink_to(mine)
        assert remove("mine").freed_bytes == 0
        assert mine.exists()

    @pytest.mark.parametrize("ref", ["smol-tools-4b", "demo:Q8_0", "a/b", "a/b:Q8_0", "none.gguf"])
    def test_what_is_not_here_cannot_be_removed(self, cache, ref):
        with pytest.raises(CatalogueError, match=r"is not installed|is not in this program|belongs to"):
            remove(ref)

    def test_an_unknown_name_is_refused(self, cache):
        with pytest.raises(CatalogueError, match="no model is called"):
            remove("nobody")


class TestListing:
    KEYS = ("name", "ref", "installed", "path", "quantization", "size_bytes", "n_ctx_train")

    def test_a_known_model_that_is_not_here_shows_what_would_come(self, cache):
        [row] = rows("smol-tools-4b-16k")
        assert tuple(row) == self.KEYS
        assert row == {
            "name": "smol-tools-4b-16k", "ref": "smol-tools-4b-16k", "installed": False, "path": None,
            "quantization": "Q4_K_M", "size_bytes": 3_114_000_000, "n_ctx_train": 262144,
        }  # fmt: skip

    def test_each_file_has_a_row_and_its_ref_leads_back_to_it(self, cache):
        folder = models_dir() / "smol-tools-4b"
        folder.mkdir(parents=True)
        for quantization, file_type in (("bf16", 32), ("q8_0", 7)):
            write_gguf(folder / f"smol-tools-4b-{quantization}.gguf", change={"general.file_type": file_type})
        found = rows("smol-tools-4b")
        assert [(row["quantization"], row["ref"]) for row in found] == [
            ("Q8_0", "smol-tools-4b:Q8_0"), ("BF16", "smol-tools-4b:BF16"),
        ]  # fmt: skip
        for row in found:
            assert str(pull(row["ref"])) == row["path"]
            assert (row["installed"], row["n_ctx_train"]) == (True, 1024)
            assert row["size_bytes"] == Path(row["path"]).stat().st_size

    def test_a_damaged_file_has_a_row(self, cache):
        [path] = own("mine", "q8_0")
        path.write_bytes(b"not a model")
        [row] = rows("mine")
        assert (row["installed"], row["quantization"], row["n_ctx_train"]) == (True, "Q8_0", None)

    def test_what_others_put_into_the_hub_s_cache_is_listed(self, hub):
        path = pull(f"{REPO}:Q8_0")
        [row] = rows(REPO)
        assert (row["ref"], row["path"]) == (f"{REPO}:Q8_0", str(path))
        assert json.dumps(row)
        assert PATH not in str(row)
