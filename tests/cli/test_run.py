from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import GET

pytestmark = pytest.mark.model
FAST = ("--threads", "1", "--max-tokens", "60", "--seed", "1")


def test_json_is_one_document_with_the_contract_s_keys(cli, tiny_model, tools_file):
    code, out, err = cli(
        "run",
        "hi",
        "--model",
        tiny_model,
        "--tools",
        tools_file,
        "--tool-choice",
        "required",
        "--json",
        *FAST,
    )
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert set(document) >= {
        "content", "reasoning", "tool_calls", "finish_reason", "usage", "timings", "model", "plan"
    }  # fmt: skip
    assert set(document["usage"]) == {"prompt_tokens", "completion_tokens", "cached_tokens", "forced_tokens"}
    assert set(document["timings"]) == {"load_s", "prefill_s", "decode_s", "ttft_s"}
    assert document["tool_calls"]
    for call in document["tool_calls"]:
        assert set(call) == {"id", "name", "arguments"}
        assert call["name"] in ("ping", "get")
    assert document["plan"]["sampling"]["seed"] == 1


def test_a_named_tool_is_the_one_that_is_called(cli, tiny_model, tools_file):
    arguments = ("run", "hi", "--model", tiny_model, "--tools", tools_file, "--tool-choice", "get", *FAST)
    code, out, _ = cli(*arguments)
    assert code == 0
    assert json.loads(out)["name"] == "get"


def test_standard_input_is_the_prompt_when_there_is_no_argument(cli, tiny_model):
    by_argument = cli("run", "hello there", "--model", tiny_model, "--json", *FAST)
    by_pipe = cli("run", "--model", tiny_model, "--json", *FAST, stdin="hello there")
    by_dash = cli("run", "-", "--model", tiny_model, "--json", *FAST, stdin="hello there")
    contents = {json.loads(out)["content"] for _, out, _ in (by_argument, by_pipe, by_dash)}
    assert len(contents) == 1


def test_a_seed_reproduces(cli, tiny_model):
    def content(seed):
        arguments = ("--threads", "1", "--max-tokens", "30", "--temperature", "1.5", "--seed", seed)
        return json.loads(cli("run", "hi", "--model", tiny_model, "--json", *arguments)[1])["content"]

    assert content(4) == content(4) != content(5)


def test_the_seed_that_was_drawn_is_told_so_that_it_can_be_given(cli, tiny_model):
    arguments = ("run", "hi", "--model", tiny_model, "--json", "--temperature", "1.5", "--max-tokens", "30")
    first = json.loads(cli(*arguments)[1])
    again = json.loads(cli(*arguments, "--seed", first["plan"]["sampling"]["seed"])[1])
    assert again["content"] == first["content"]


def test_the_grammar_can_be_switched_off_and_broken_calls_are_told(cli, tiny_model, tools_file):
    arguments = (
        "run",
        "hi",
        "--model",
        tiny_model,
        "--tools",
        tools_file,
        "--tool-choice",
        "required",
        *FAST,
    )
    document = json.loads(cli(*arguments, "--no-grammar", "--json")[1])
    assert document["tool_calls"] == []


def test_a_pipe_gets_plain_text_without_control_characters(cli, tiny_model):
    code, out, _ = cli("run", "hi", "--model", tiny_model, "--temperature", "2", *FAST)
    assert code == 0
    assert out.endswith("\n")
    assert "\x1b" not in out


def test_verbose_puts_llama_cpp_s_log_on_standard_error_and_otherwise_it_is_in_a_file(
    cli, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    quiet = cli("run", "hi", "--model", tiny_model, *FAST)
    assert quiet[2] == ""
    assert "llama_context" in (tmp_path / "smoltools-edge" / "log" / "llama.log").read_text()
    loud = cli("run", "hi", "--model", tiny_model, "--verbose", *FAST)
    assert "llama_context" in loud[2]
    assert loud[1] == quiet[1]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--model", "none.gguf"], "there is no file none.gguf"),
        (["--model", "."], "is a directory; a model is one .gguf file"),
        (
            ["--model", "smol-tolls"],
            "no model is called 'smol-tolls'; did you mean smol-tools-4b? known are demo",
        ),
        (["--model", ""], "the model reference is empty"),
        (["--n-ctx", "0"], "n_ctx is 0; this model allows 1 to 1024"),
        (["--n-ctx", "-1"], "n_ctx is -1"),
        (["--n-ctx", "99999999"], "n_ctx is 99999999; this model allows 1 to 1024"),
        (["--n-ctx", "4"], "n_ctx=4"),
        (["--max-tokens", "0"], "max_tokens is 0; at least 1 is needed"),
        (["--temperature", "-1"], "temperature is -1.0; allowed is 0 to 5"),
        (["--seed", "-1"], "seed is -1; allowed is 0 to 4294967294"),
        (["--kv-type", "q4"], "kv_type is 'q4'; allowed are f32, f16, q8_0"),
        (["--tool-choice", "ping"], "tool_choice is 'ping', but no tools are given"),
        (["--tools", "none.json"], "the tools file none.json cannot be read: No such file"),
    ],
)
def test_a_bad_option_is_one_line_on_standard_error(cli, tiny_model, arguments, found):
    model = [] if "--model" in arguments else ["--model", tiny_model]
    code, out, err = cli("run", "a prompt of some length", *model, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert found in err


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\xff", "is not JSON"),
        ("3", "list"),
        ('{"a": 1}', "list"),
        ("[3]", "0"),
        ('[{"type": "function"}]', "0"),
        (json.dumps([GET, GET]), "'get'"),
        ('[{"name": "f", "parameters": 7}]', "f"),
        ('[{"name": "f", "parameters": {"type": "object", "properties": 3}}]', "properties"),
        ('[{"name": "f", "parameters": {"$ref": "#/nowhere"}}]', "#/nowhere"),
    ],
)
def test_a_bad_tools_file_is_one_line_naming_it(cli, tiny_model, tmp_path, content, found):
    path = tmp_path / "bad.json"
    path.write_bytes(content.encode("latin-1"))
    code, out, err = cli("run", "hi", "--model", tiny_model, "--tools", path)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert found in err


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(cli, tiny_model, prompt):
    code, _, err = cli("run", "--model", tiny_model, stdin=prompt)
    assert (code, err) == (
        1,
        "error: the prompt is empty; give it as an argument or on standard input\n",
    )


def test_a_prompt_that_does_not_fit_names_both_numbers(cli, tiny_model):
    code, _, err = cli("run", "word " * 5000, "--model", tiny_model)
    assert code == 1
    assert "n_ctx=1024" in err
    assert err.count("\n") == 1


def test_bad_usage_is_exit_code_2(cli):
    assert cli("run", "--no-such-flag")[0] == 2
    assert cli("nothing")[0] == 2
    assert cli("run", "hi", "--max-tokens", "many")[0] == 2


def test_an_interrupt_ends_with_130_and_no_traceback(tiny_model):
    command = [
        sys.executable,
        "-m",
        "edge.cli",
        "run",
        "hi",
        "--model",
        str(tiny_model),
        "--max-tokens",
        "1000000",
    ]
    options = ["--threads", "1", "--temperature", "3", "--seed", "1"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_catalogue_s_fitting_tools_are_offered_and_can_be_called(cli, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path / "cache"))
    catalogue = tmp_path / "catalogue.jsonl"
    rows = [
        {"name": name, "parameters": {"additionalProperties": False}}
        for name in ("ring_bell", "open_door", "play")
    ]
    catalogue.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["run", "open the door", "--catalog", catalogue, "--top-k", "1", "--tool-choice", "required"]
    code, out, _ = cli(*command, "--json", "--model", tiny_model, "--seed", "1", "--max-tokens", "60")
    document = json.loads(out)
    assert code == 0
    assert document["tools_offered"] == ["open_door"]
    assert {call["name"] for call in document["tool_calls"]} == {"open_door"}


def test_a_bad_catalogue_is_one_line(cli, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "c.jsonl").write_text('{"name": "a"}\n{"name": "a"}\n')
    code, out, err = cli("run", "hi", "--catalog", tmp_path / "c.jsonl", "--model", tiny_model)
    assert (code, out) == (1, "")
    assert "line 2: the id 'a' was used before" in err
