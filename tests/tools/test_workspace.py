"""File tools stay in the workspace, whatever the path says or changes into."""

from __future__ import annotations

import os
import threading

import pytest

from edge.errors import ToolsError
from edge.tools.executable import ToolFailure
from edge.tools.workspace import Workspace

OUTSIDE = [
    "../secret.txt", "a/../../secret.txt", "/etc/passwd", "~/secret.txt", "./../secret.txt", "a/b/../../../secret.txt",
    "/workspace/../secret.txt", "..", "link/secret.txt", "link", "folder/link/secret.txt", "/proc/self/environ",
]  # fmt: skip


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def trapped(workspace, tmp_path):
    """A workspace with links that lead out."""
    (workspace.folder / "link").symlink_to(tmp_path)
    (workspace.folder / "file_link").symlink_to(tmp_path / "secret.txt")
    (workspace.folder / "folder").mkdir()
    (workspace.folder / "folder" / "link").symlink_to("..")
    return workspace


@pytest.mark.parametrize("path", [*OUTSIDE, "file_link"])
def test_nothing_outside_is_read(trapped, builtin, path):
    result = builtin("read_file", path=path)
    assert result.is_error
    assert "the secret" not in result.text


@pytest.mark.parametrize("path", [*OUTSIDE, "link/new.txt"])
@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_nothing_outside_is_written(trapped, builtin, tmp_path, path, mode):
    before = sorted(tmp_path.iterdir())
    assert builtin("write_file", path=path, content="owned", mode=mode).is_error
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "secret.txt").read_text() == "the secret"


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_link_is_not_written_through(trapped, builtin, tmp_path, mode):
    assert builtin("write_file", path="file_link", content="owned", mode=mode).is_error
    assert (tmp_path / "secret.txt").read_text() == "the secret"


@pytest.mark.parametrize("path", ["..", "link", "/", "folder/link", "/etc"])
def test_nothing_outside_is_listed(trapped, builtin, path):
    result = builtin("list_directory", path=path)
    assert result.is_error
    assert "secret.txt" not in result.text


def test_databases_outside_are_not_opened(trapped, builtin, tmp_path):
    import sqlite3

    sqlite3.connect(tmp_path / "out.db").execute("CREATE TABLE t (x)").connection.close()
    (trapped.folder / "in.db").symlink_to(tmp_path / "out.db")
    for path in ("../out.db", "in.db", "link/out.db", "file:../out.db?mode=rw"):
        assert builtin("database_query", query="SELECT * FROM t", database=path).is_error


def test_a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere(workspace, tmp_path):
    """One thread swaps a folder for a link to the outside, over and over; the other never reads the secret."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file.txt").write_text("the secret")
    inside, link = workspace.folder / "inside", workspace.folder / "link"
    inside.mkdir()
    (inside / "file.txt").write_text("mine")
    link.symlink_to(outside)
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            inside.rename(workspace.folder / "away")
            link.rename(inside)
            inside.rename(link)
            (workspace.folder / "away").rename(inside)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                with workspace.open_file("inside/file.txt") as fd:
                    seen.add(os.read(fd, 100))
            except ToolFailure:
                seen.add(b"refused")
    finally:
        stop.set()
        thread.join()
    assert b"the secret" not in seen
    assert b"mine" in seen


def test_files_are_written_read_and_listed(workspace, builtin):
    assert builtin("write_file", path="notes/a.txt", content="one\n").text == 'wrote 4 bytes to "notes/a.txt"'
    builtin("write_file", path="/workspace/notes/a.txt", content="two\n", mode="append")
    assert builtin("read_file", path="./notes/../notes/a.txt").text == "one\ntwo\n"
    assert builtin("list_directory").text == "notes/"
    assert builtin("list_directory", path="notes").text == "a.txt  8 bytes"
    assert names(workspace.folder / "notes") == ["a.txt"]


def test_a_long_file_is_read_in_parts(workspace, builtin):
    (workspace.folder / "long.txt").write_text("".join(f"{n}\n" for n in range(1, 1001)))
    result = builtin("read_file", path="long.txt", start_line=10, max_lines=2)
    assert result.text == "10\n11\n[cut: lines 10 to 11 of 1000]"
    assert result.cut
    assert "has 1000 lines" in builtin("read_file", path="long.txt", start_line=2000).text


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: path.write_bytes(b"\x7fELF\0\0"), "not a text file"),
    ],
)
def test_what_is_no_text_file_is_refused_at_once(workspace, builtin, make, fault):
    make(workspace.folder / "odd")
    result = builtin("read_file", path="odd")
    assert result.is_error
    assert fault in result.text


def test_a_write_that_fails_leaves_the_old_file(workspace, builtin, monkeypatch):
    builtin("write_file", path="a.txt", content="old")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge.tools.workspace.os.replace", fail)
    assert "No space left" in builtin("write_file", path="a.txt", content="new").text
    assert names(workspace.folder) == ["a.txt"]
    assert (workspace.folder / "a.txt").read_text() == "old"


def test_names_with_control_characters_are_listed_escaped(workspace, builtin):
    (workspace.folder / "a\x1b[2Jb\n").write_text("")
    assert builtin("list_directory").text == '"a\\u001b[2Jb\\n"  0 bytes'


def test_a_workspace_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ToolsError, match="cannot be opened"):
        Workspace(tmp_path / "missing")
