"""The plot of a training log."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from demo.curve import Curve, main, read_curve, smoothed, svg

SVG = "{http://www.w3.org/2000/svg}"
LOG = [
    {"step": 1, "of": 3, "loss": 2.0, "tokens": 100, "seconds": 1.0, "learning_rate": 0.001},
    {"step": 2, "of": 3, "loss": 1.0, "tokens": 200, "seconds": 2.0, "learning_rate": 0.001},
    {"step": 2, "of": 3, "loss": 0.5, "tokens": 200, "seconds": 2.0, "validation_loss": 0.6},
    {"step": 3, "of": 3, "loss": 0.25, "tokens": 400, "seconds": 3.0},
    {"step": 3, "of": 3, "validation_loss": 0.3, "tokens": 400, "seconds": 3.0},
]


@pytest.fixture
def write(tmp_path):
    def write(lines):
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (tmp_path / "log.jsonl").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_a_log_is_read_with_the_last_word_on_each_step(write):
    curve = read_curve(write(LOG) / "log.jsonl")
    assert curve == Curve(((100, 2.0), (200, 0.5), (400, 0.25)), ((200, 0.6), (400, 0.3)))


def test_the_plot_falls_to_the_right_and_has_a_dot_for_each_validation(write):
    run = write(LOG)
    assert main([str(run), str(run / "curve.svg")]) == 0
    root = ET.fromstring((run / "curve.svg").read_text(encoding="utf-8"))
    steps, mean = (
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        for line in root.iter(SVG + "polyline")
    )
    assert len(steps) == len(mean) == 3
    assert steps == sorted(steps)
    assert [y for _, y in steps] == sorted(y for _, y in steps)  # downwards on the screen
    # 2, 0.5 and 0.25 halve evenly on a logarithmic axis: two steps of log 2, then one.
    falls = steps[1][1] - steps[0][1], steps[2][1] - steps[1][1]
    assert falls[0] == pytest.approx(2 * falls[1], abs=0.3)
    assert steps[1][0] - steps[0][0] == pytest.approx((steps[2][0] - steps[1][0]) / 2, abs=0.2)
    assert len(list(root.iter(SVG + "circle"))) == 2
    assert "400" in [text.text for text in root.iter(SVG + "text")]


def test_the_running_mean_starts_at_the_first_step_and_is_slower_than_the_losses():
    found = smoothed([(1, 4.0), (2, 2.0), (3, 2.0)])
    assert found[0] == (1, pytest.approx(4.0))
    assert 2.0 < found[2][1] < found[1][1] < 4.0
    # By hand: (0.95 * 0.05 * 4 + 0.05 * 2) / (0.95 * 0.05 + 0.05)
    assert found[1][1] == pytest.approx(0.29 / 0.0975)


def test_equal_losses_can_be_drawn():
    assert ET.fromstring(svg(Curve(((1, 1.0), (2, 1.0)), ())))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([], "holds 0 steps"),
        (LOG[:1], "holds 1 steps"),
        ([LOG[0], "oops"], "line 2: not a record"),
        ([LOG[0], {**LOG[1], "loss": "low"}], "line 2: not a record"),
        ([LOG[0], "5"], "line 2: not a record"),
    ],
)
def test_a_log_that_cannot_be_drawn_is_refused_in_one_line(write, capsys, lines, fault):
    run = write(lines)
    assert main([str(run), str(run / "curve.svg")]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert fault in error
    assert not (run / "curve.svg").exists()


def test_a_folder_without_a_log_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "curve.svg")]) == 1
    assert "log.jsonl" in capsys.readouterr().err
