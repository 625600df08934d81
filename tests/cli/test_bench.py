"""`bench` on a tiny model: figures are consistent and come from the run. How large they are, nobody asks here."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
from types import SimpleNamespace

import pytest

from edge.bench.measure import BenchOptions, measure
from edge.bench.memory import peak_resident_bytes
from edge.chat.template import hermes_template
from edge.cli.bench import read_condition
from edge.engine import generation as generation_module
from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.types import Tool
from tests.tiny_gguf import TinyShape, write_gguf

pytestmark = pytest.mark.model
SMALL = (
    "--threads",
    "1",
    "--repeats",
    "2",
    "--gen-tokens",
    "8",
    "--prompt-tokens",
    "16",
    "--prompt-tokens",
    "40",
)
PING, PONG = (Tool(name, {"type": "object", "additionalProperties": False}) for name in ("ping", "pong"))


@pytest.fixture(scope="module")
def roomy_model(tmp_path_factory):
    """Its context holds the example tools, which take a token a byte here."""
    template = {"tokenizer.chat_template": hermes_template().source}
    return write_gguf(tmp_path_factory.mktemp("bench") / "roomy.gguf", TinyShape(n_ctx=4096), change=template)


@pytest.fixture(scope="module")
def engine(roomy_model):
    with Engine(roomy_model, context=ContextOptions(n_threads=1)) as engine:
        yield engine


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes on by a second with each look at it, in place of the engine's."""
    state = SimpleNamespace(now_s=0.0)

    def look():
        state.now_s += 1.0
        return state.now_s

    monkeypatch.setattr(generation_module, "time", SimpleNamespace(perf_counter=look))
    return state


def ignore_step(stage, done, total):
    pass


def check_spread(found, n):
    assert set(found) == {"median", "min", "max", "samples"}
    assert len(found["samples"]) == n
    assert 0 <= found["min"] <= found["median"] <= found["max"]
    assert found["median"] == statistics.median(found["samples"])


def check_speed(speed, n):
    check_spread(speed["seconds"], n)
    check_spread(speed["tokens_per_second"], n)
    for tokens, seconds, rate in zip(
        speed["tokens"], speed["seconds"]["samples"], speed["tokens_per_second"]["samples"], strict=True
    ):
        assert rate == pytest.approx(tokens / seconds)


def test_json_is_one_document_whose_figures_agree_with_each_other(cli, roomy_model):
    code, out, err = cli("bench", "--model", roomy_model, "--json", *SMALL)
    assert code == 0, err
    document = json.loads(out)
    assert set(document) == {
        "model", "device", "llama_cpp", "settings", "load_seconds", "prefill", "decode", "calls", "first_token",
        "skipped", "memory", "conditions",
    }  # fmt: skip
    assert document["skipped"] == []
    assert document["settings"]["n_threads"] == 1
    assert document["model"]["path"] == str(roomy_model)
    assert document["llama_cpp"]["version"]
    assert document["device"]["name"]
    assert document["load_seconds"] > 0
    assert [(p["prompt_tokens"], p["speed"]["tokens"]) for p in document["prefill"]] == [
        (16, [16, 16]), (40, [40, 40]),
    ]  # fmt: skip
    for speed in (*(p["speed"] for p in document["prefill"]), document["decode"], document["calls"]["speed"]):
        check_speed(speed, 2)
    assert all(n >= 8 for n in document["decode"]["tokens"])
    calls, first = document["calls"], document["first_token"]
    assert calls["asked"] == 6  # three questions, twice
    assert 0 <= calls["valid"] <= 6
    assert 0 < calls["forced_share"] < 1
    assert calls["forced_share"] == calls["forced_tokens"] / calls["completion_tokens"]
    assert (calls["seconds_per_valid_call"] is None) == (calls["valid"] == 0)
    # A token a byte: the tools were held, and nothing of a question that begins with another number.
    assert len("is what?") < first["prompt_tokens"] - first["reused_tokens"] < 100
    assert first["reused_tokens"] > 1000
    check_spread(first["cold_seconds"], 2)
    check_spread(first["reused_seconds"], 2)
    assert document["memory"]["planned_bytes"] > 0
    assert document["memory"]["peak_resident_bytes"] > 1 << 20
    assert set(document["conditions"]) == {"before", "after"}
    assert "prefill of 16 tokens: once to warm up, then 2 times\n" in err


def test_every_second_is_one_of_the_engine_s_clock(engine, ticking):
    options = BenchOptions(repeats=3, prompt_tokens=(16,), gen_tokens=5)
    figures = measure(engine, options, [PING, PONG], ignore_step)
    # It is looked at as an answer begins, is prefilled, has its first token, and ends: 2 s and 1 s.
    assert figures.prefill[0].speed.seconds.samples == pytest.approx((2.0, 2.0, 2.0))
    assert figures.prefill[0].speed.tokens_per_second.median == pytest.approx(8.0)
    assert figures.calls.speed.seconds.samples == pytest.approx((3.0, 3.0, 3.0))  # of three answers
    assert figures.calls.seconds_per_valid_call.median == pytest.approx(3.0)
    assert figures.first_token.cold_seconds.median == pytest.approx(2.0)
    assert figures.first_token.reused_seconds.median == pytest.approx(2.0)


def test_calls_with_little_freedom_are_forced_for_the_most_part(engine):
    options = BenchOptions(repeats=1, prompt_tokens=(16,), gen_tokens=2)
    calls = measure(engine, options, [PING, PONG], ignore_step).calls
    assert calls.valid == calls.asked == 3
    assert 0.8 < calls.forced_share < 1


def test_the_question_of_a_reused_prompt_is_new_to_the_engine(engine):
    options = BenchOptions(repeats=1, prompt_tokens=(16,), gen_tokens=2)
    first = measure(engine, options, [PING, PONG], ignore_step).first_token
    assert first.prompt_tokens - first.reused_tokens > len("times 2 is what?")  # a token a byte


def test_the_warm_up_is_told_and_not_counted(engine):
    steps = []
    options = BenchOptions(repeats=2, prompt_tokens=(8,), gen_tokens=2)
    figures = measure(engine, options, [PING, PONG], lambda *step: steps.append(step))
    assert steps[:4] == [("prefill of 8 tokens", done, 3) for done in range(4)]
    assert len(figures.prefill[0].speed.tokens) == 2
    assert len(dict.fromkeys(stage for stage, _, _ in steps)) == 5


def test_what_does_not_fit_the_context_is_skipped_with_the_reason(cli, tiny_model):
    code, out, err = cli("bench", "--model", tiny_model, "--json", "--n-ctx", "256", *SMALL)
    assert code == 0, err
    document = json.loads(out)
    assert document["calls"] is None
    assert document["first_token"] is None
    assert [skipped["what"] for skipped in document["skipped"]] == ["calls", "first token"]
    assert all("n_ctx=256" in skipped["why"] for skipped in document["skipped"])


def test_default_prompts_are_as_long_as_the_context_allows():
    assert BenchOptions().prompt_sizes(4096) == (128, 512)
    assert BenchOptions().prompt_sizes(300) == (128, 299)
    assert BenchOptions(gen_tokens=8).prompt_sizes(100) == (99,)


def test_people_get_a_table(cli, tiny_model):
    code, out, err = cli("bench", "--model", tiny_model, "--n-ctx", "256", *SMALL)
    assert code == 0, err
    for text in (
        "read 16 tokens",
        "read 40 tokens",
        "write free text",
        "tokens/s",
        "planned",
        "not measured: calls: ",
    ):
        assert text in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--repeats", "0"], "repeats is 0; allowed is 1 to 1000"),
        (["--gen-tokens", "0"], "gen_tokens is 0; at least 1 is needed"),
        (["--gen-tokens", "5000"], "gen_tokens is 5000; n_ctx=1024 leaves room for 1023"),
        (["--prompt-tokens", "-3"], "prompt_tokens is -3; at least 1 is needed"),
        (["--prompt-tokens", "1024"], "prompt_tokens is 1024; n_ctx=1024 leaves room for 1023"),
        (["--kv-type", "q4"], "kv_type is 'q4'"),
        (["--threads", "0"], "n_threads is 0"),
        (["--model", "none.gguf"], "there is no file none.gguf"),
    ],
)
def test_a_bad_option_is_one_line(cli, tiny_model, arguments, found):
    code, out, err = cli("bench", *([] if "--model" in arguments else ["--model", tiny_model]), *arguments)
    assert (code, out) == (1, "")
    assert found in err
    assert err.count("\n") == 1


def test_an_interrupt_ends_with_130_and_prints_no_half_document(tiny_model):
    command = [sys.executable, "-m", "edge.cli", "bench", "--model", str(tiny_model), "--json"]
    options = ["--threads", "1", "--repeats", "1000"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "warm up" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_a_board_that_tells_its_temperature_is_believed(tmp_path):
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("61500\n")
    assert read_condition(tmp_path).temperature_celsius == 61.5
    assert read_condition(tmp_path / "sys").temperature_celsius is None


def test_the_peak_is_the_kernel_s_figure(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n")
    assert peak_resident_bytes(status) == 2048 * 1024
    assert peak_resident_bytes(tmp_path / "none") is None
