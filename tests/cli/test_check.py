from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.accuracy.runner import Progress
from edge.cli.check import ProgressLines
from tests.accuracy.conftest import (  # noqa: F401 - fixtures
    case_row,
    completion,
    question_of,
    serve,
    tiny_files,
    weather,
    write_rows,
)

REPO = Path(__file__).parents[2]


@pytest.fixture
def cases(tmp_path):
    return write_rows(tmp_path / "cases.jsonl", [case_row(f"c{i}", weather("Rome")) for i in range(40)])


@pytest.fixture
def urls(serve):  # noqa: F811
    right = serve(lambda request: (200, completion(weather("Rome"))))
    wrong = serve(lambda request: (200, completion(("get_time", {"zone": "UTC"}))))
    return right.url, wrong.url


def test_a_verdict_of_fail_is_exit_code_3_and_one_document(cli, cases, urls, tmp_path):
    code, out, err = cli("check", *urls, "--eval", cases, "--report", tmp_path / "out", "--json")
    document = json.loads(out)
    assert code == 3
    assert document["verdict"] == "fail"
    assert [variant["path"] for variant in document["variants"]] == list(urls)
    assert "report.html" in err
    assert json.loads((tmp_path / "out/report.json").read_text()) == document
    assert "| Tool selection F1 |" in (tmp_path / "out/report.md").read_text()


def test_the_reference_can_be_named_and_endpoints_are_candidates(cli, cases, urls, tmp_path):
    code, out, _ = cli(
        "check", "--reference", urls[1], "--endpoint", urls[0], "--eval", cases, "--work", tmp_path / "w"
    )
    assert code == 0
    assert "**Verdict: " in out
    assert "1.000 (+1.000" in out


def test_files_are_compared_and_undecided_is_no_failure(cli, cases, tiny_files, tmp_path):  # noqa: F811
    found = cli("check", tiny_files["f32"], tiny_files["q8_0"], "--eval", cases, "--limit", 2, "--max-tokens", 8,
                "--threads", 1, "--work", tmp_path / "w", "--json")  # fmt: skip
    document = json.loads(found[1])
    assert (found[0], document["verdict"], document["cases"]) == (0, "undecided", 2)
    assert document["distribution"][0]["candidate"] == "tiny-q8_0"
    assert document["variants"][1]["path"] == str(tiny_files["q8_0"])


def test_the_same_file_twice_has_two_names_and_passes(cli, cases, tiny_files, tmp_path):  # noqa: F811
    file = tiny_files["f32"]
    code, out, _ = cli("check", file, file, "--eval", cases, "--limit", 2, "--max-tokens", 8, "--threads", 1,
                       "--work", tmp_path / "w", "--json")  # fmt: skip
    document = json.loads(out)
    assert (code, document["verdict"]) == (0, "pass")
    assert [variant["name"] for variant in document["variants"]] == ["tiny-f32", "tiny-f32-2"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["a.gguf", "b.gguf"], "--eval FILE"),
        (["a.gguf", "--eval", "cases.jsonl"], "at least one candidate"),
        (["a.gguf", "b.gguf", "--eval", "cases.jsonl", "--max-f1-drop", "-1"], "--max-f1-drop"),
        (["a.gguf", "b.gguf", "--eval", "cases.jsonl", "--limit", "0"], "--limit"),
    ],
)
def test_bad_usage_is_exit_code_2(cli, cases, monkeypatch, args, said):
    monkeypatch.chdir(cases.parent)
    code, _, err = cli("check", *args)
    assert code == 2
    assert said in err


def test_known_errors_are_one_line(cli, cases, tiny_files, tmp_path):  # noqa: F811
    bad = tmp_path / "bad.jsonl"
    bad.write_text("nonsense\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "lost").symlink_to(tmp_path / "gone")
    one, other = tiny_files["f32"], tiny_files["stranger"]
    for args, said in (
        ((one, other, "--eval", bad), "line 1: not JSON"),
        ((one, other, "--eval", cases), "--force-compare"),
        ((one, tmp_path / "none.gguf", "--eval", cases), "none.gguf"),
        ((one, one, "--eval", cases, "--report", tmp_path / "file"), "cannot be made: File exists"),
        (
            (one, one, "--eval", cases, "--report", tmp_path / "file" / "in"),
            "cannot be made: Not a directory",
        ),
        ((one, one, "--eval", cases, "--report", tmp_path / "lost"), "File exists; name one that is there"),
        ((one, one, "--eval", cases, "--report", tmp_path / "report" / ("x" * 300)), "File name too long"),
        ((one, tmp_path / "none.gguf", "--eval", cases, "--report", tmp_path / "report"), "none.gguf"),
        ((one, one, "--eval", bad, "--report", tmp_path / "report"), "line 1: not JSON"),
        ((one, "transformers:/nowhere", "--eval", cases), "holds no config.json"),
        ((one, one, "--eval", cases, "--tools", tmp_path / "none.json"), "tools file"),
        ((one, one, "--eval", cases, "--ray", "nowhere"), "ray"),
        ((one, one, "--eval", cases, "--n-ctx", 99999), "n_ctx"),
        (
            ("http://127.0.0.1:9", "--endpoint-model", "m", one, "--eval", cases, "--limit", 1),
            "does not answer",
        ),
    ):
        code, out, err = cli("check", *args, "--work", tmp_path / "w")
        lines = [line for line in err.splitlines() if not line.startswith("answers-")]
        assert (code, out, len(lines)) == (1, "", 1), err
        assert lines[0].startswith("error: ")
        assert said in lines[0]
    assert not (tmp_path / "report").exists()


def test_ctrl_c_keeps_what_is_done(serve, cases, tmp_path):  # noqa: F811
    """The program is stopped in the middle and started again; no case is asked twice."""
    asked = []

    def slow(request):
        asked.append(question_of(request))
        time.sleep(0.05)
        return 200, completion(weather("Rome"))

    server = serve(slow)
    args = ["check", server.url, server.url, "--eval", str(cases), "--work", str(tmp_path / "w"), "--json"]
    command = [sys.executable, "-m", "edge.cli", *args]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 60
    while len(asked) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out == ""
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    n_before = len(asked)
    assert 5 <= n_before < 40
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert json.loads(done.stdout)["cases"] == 40
    assert len(asked) <= 81  # 40 cases of two variants, and at most the one that was under way


def test_lines_of_progress_say_what_is_left(capsys):
    now = [0.0]
    lines = ProgressLines(clock=lambda: now[0])
    for done in range(0, 11):
        lines.show(Progress("answers-x", done, 10, done, 20, done))
        now[0] += 6.0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "answers-x: 0/10 (all 0/20)"
    assert told[5] == "answers-x: 5/10, 30 s left (all 5/20)"
    assert told[-1] == "answers-x: 10/10 (all 10/20)"
    assert len(told) == 11
