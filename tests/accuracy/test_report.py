from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from edge.accuracy.check import check
from edge.accuracy.document import to_document
from edge.accuracy.errors import CheckError
from edge.accuracy.plots import decades_of, divergence_histogram
from edge.accuracy.report import write_report
from edge.accuracy.report_html import marked_difference
from edge.accuracy.report_text import to_markdown
from tests.accuracy.conftest import completion, endpoint_spec, gguf_spec, question_of
from tests.accuracy.test_check import ANSWERING, options

HOSTILE = "<script>alert(1)</script> \ud800 \x1b[31m & | `x`"


def answers(request):
    number = int(question_of(request)[1:])
    return 200, completion(("get_weather", {"city": HOSTILE if number == 3 else "Rome"}), content=HOSTILE)


@pytest.fixture(scope="module")
def reported(tiny_files, tmp_path_factory):
    """A check with all parts: two files, an endpoint that says hostile things; its document and report."""
    from edge.accuracy.cases import read_cases
    from tests.accuracy.conftest import FakeServer, case_row, weather, write_rows

    folder = tmp_path_factory.mktemp("report")
    rows = [
        case_row(f"c{i}", *([weather("Rome")] if i % 2 else []), scenario=f"s{i % 2} <b>") for i in range(6)
    ]
    cases = read_cases(write_rows(folder / "cases.jsonl", rows))
    server = FakeServer(answers)
    specs = [gguf_spec(tiny_files[kind]) for kind in ("f32", "q8_0", "q4_0")]
    try:
        asked = options(folder, *specs, endpoint_spec(server, "a <server>"), answering=ANSWERING)
        result = check(asked, cases)
    finally:
        server.close()
    document = to_document(result)
    paths = write_report(document, result, folder / "out")
    return document, {path.name: path for path in paths}, result


class Page(HTMLParser):
    """Notes the tags, what they refer to, and whether they are closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_holds_all_parts(reported):
    text = reported[1]["report.html"].read_text()
    page = Page(text)
    assert page.open == []
    assert page.references == []
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert page.tags.count("svg") == 1 + 2 + 2  # scenarios, histograms, size and speed
    assert text.index("undecided") < text.index("Task metrics") < text.index("Cases that flipped")
    assert "prefers-color-scheme: dark" in text


def test_what_models_and_files_say_is_text(reported):
    text = reported[1]["report.html"].read_text()
    assert "script" not in Page(text).tags
    assert "&lt;script&gt;" in text
    assert "a &lt;server&gt;" in text
    assert "s1 &lt;b&gt;" in text


def test_the_json_is_the_document(reported):
    document, paths, _ = reported
    found = json.loads(paths["report.json"].read_text())
    assert found["verdict"] == document["verdict"]
    assert found["definitions"]["recall"]


def test_the_markdown_has_the_cards_table_and_the_definitions(reported):
    text = to_markdown(reported[0])
    assert "| Tool selection F1 | " in text
    assert "| Same top token | " in text
    assert "- JSON validity: share of all call blocks" in text
    rows = [line for line in text.splitlines() if line.startswith("| with grammar")]
    assert rows == ["| with grammar | tiny-f32 | tiny-q8_0 | tiny-q4_0 | a <server> |"]
    table = text[text.index("| flipped") :].splitlines() if "| flipped" in text else []
    widths = {re.sub(r"\\\|", "", line).count("|") for line in table if line.startswith("|")}
    assert widths == {6}


def test_a_report_that_cannot_be_written_is_one_line(reported, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(CheckError, match="cannot be written"):
        write_report(reported[0], reported[2], tmp_path / "out")


def test_differences_are_marked_and_escaped():
    from markupsafe import Markup

    before, after = marked_difference('city "Rome" <b>', 'city "Oslo" <b>', Markup)
    assert before == "city &#34;<del>Rome</del>&#34; &lt;b&gt;"
    assert after == "city &#34;<ins>Oslo</ins>&#34; &lt;b&gt;"


def test_a_histogram_counts_every_token():
    svg = divergence_histogram([0.0, 1e-9, 0.5, 0.5, 0.9], 1, (-4, 0))
    assert sum(int(n) for n in re.findall(r"<title>(\d+) tokens", svg)) == 5
    assert decades_of([]) == decades_of([0.0]) == (-6, -5)
    low, high = decades_of([1e-30, 0.02, 3.0])
    assert (high, high - low <= 8) == (1, True)


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_the_page_without_sideways_scrolling(reported, tmp_path, width, scheme):
    """Needs Debian's chromium. The page reports its own width: what sticks out would make it wider."""
    page = tmp_path / "page.html"
    text = reported[1]["report.html"].read_text()
    probe = "<script>document.title = [innerWidth, document.documentElement.scrollWidth].join(' ')</script></body>"
    page.write_text(text.replace("</body>", probe))
    picture = tmp_path / "page.png"
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={width},3000",
    ]
    flags += ["--blink-settings=preferredColorScheme=" + ("0" if scheme == "dark" else "1")]
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0"><iframe src="page.html" style="border:0;width:{width}px;height:3000px">'
    )
    subprocess.run(
        ["chromium", *flags, f"--screenshot={picture}", frame.as_uri()], capture_output=True, timeout=120
    )
    assert picture.stat().st_size > 20_000
    dumped = subprocess.run(
        ["chromium", *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    inner, scroll = map(int, re.search(r"<title>(\d+) (\d+)</title>", dumped.stdout).groups())
    assert scroll <= inner
