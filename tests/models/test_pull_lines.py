"""`pull`, `rm` and the lines of progress, in this process."""

from __future__ import annotations

import pytest

from edge.cli.progress import LineView
from edge.cli.start import run
from edge.models.download import Transfer
from tests.models.conftest import REPO
from tests.tiny_gguf import write_gguf


@pytest.fixture
def content(hub, tmp_path):
    whole = write_gguf(tmp_path / "x.gguf").read_bytes()
    hub.repos[REPO] = {"model-Q8_0.gguf": whole}
    return whole


def call(capsys, *args):
    code = run(list(args))
    out, err = capsys.readouterr()
    return code, out, err


def test_elsewhere_than_at_a_terminal_progress_is_lines(hub, content, capsys):
    _, out, err = call(capsys, "pull", REPO)
    lines = [line for line in err.splitlines() if " %" in line]
    assert 3 <= len(lines) <= 11
    assert "MB/s" in lines[0]
    assert lines[0].endswith("left")
    assert lines[-1].endswith("(100 %)")
    assert "\r" not in err
    assert "\x1b" not in err
    assert out.endswith("model-Q8_0.gguf\n")


def test_a_file_that_cannot_be_run_is_refused_after_the_download(hub, capsys):
    hub.repos[REPO] = {"model-Q8_0.gguf": b"GGUF" + b"x" * 1000}
    code, out, err = call(capsys, "pull", REPO)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert "is damaged: GGUF version" in err.splitlines()[-1]


def test_rm_says_what_it_freed(hub, content, capsys):
    call(capsys, "pull", REPO)
    code, out, err = call(capsys, "rm", REPO)
    assert (code, out) == (0, "")
    assert err.splitlines()[-1].endswith("kB freed")
    assert call(capsys, "rm", REPO)[0] == 1


def test_a_missing_file_is_one_line(capsys, cache):
    code, out, err = call(capsys, "pull", "none.gguf")
    assert (code, out, err) == (1, "", "error: there is no file none.gguf\n")


class TestLines:
    """A line each tenth, counted from where an earlier run ended."""

    def lines(self, capsys, *done):
        view = LineView()
        for n_bytes in done:
            view.on_bytes(Transfer("m.gguf", n_bytes, 1000, done[0]))
        return capsys.readouterr().err.splitlines()

    def test_each_tenth_has_one(self, capsys):
        assert len(self.lines(capsys, *range(0, 1001, 10))) == 10

    def test_small_news_have_none(self, capsys):
        assert self.lines(capsys, 0, 10, 20, 99) == []

    def test_what_was_there_is_said_first(self, capsys):
        lines = self.lines(capsys, 500, 550, 1000)
        assert lines[0] == "going on from 500 bytes of 1.0 kB (50 %)"
        assert lines[1] == "1.0 kB of 1.0 kB (100 %)"

    def test_a_whole_file_that_was_there_has_no_line_more(self, capsys):
        assert self.lines(capsys, 1000) == ["going on from 1.0 kB of 1.0 kB (100 %)"]
