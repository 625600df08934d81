"""Command-line and HTTP tools from a file."""

from __future__ import annotations

import json

import pytest

from edge.errors import ToolsError
from edge.tools.config import read_config
from edge.tools.executable import CallContext
from edge.tools.running import execute
from edge.tools.setup import ToolboxOptions, open_toolbox
from tests.tools.conftest import reply


@pytest.fixture
def declared(tmp_path):
    """Runs a tool of a declaration: its result."""
    boxes = []

    def run(declaration, name="t", /, top=None, **arguments):
        path = tmp_path / "tools.json"
        properties = {key: {} for key in arguments}
        tool = {"name": name, "parameters": {"type": "object", "properties": properties}, **declaration}
        path.write_text(json.dumps({"tool": [tool], "builtin": [], "workspace": ".", **(top or {})}))
        toolbox = open_toolbox(ToolboxOptions(config=path))
        boxes.append(toolbox)
        return execute(toolbox.get(name), arguments, CallContext(10))

    yield run
    for box in boxes:
        box.close()


def test_a_command_gets_its_arguments_each_in_one_place(declared):
    show = ["printf", "[%s]", "{a}", "x={b}", ["-n", "{missing}"]]
    declaration = {
        "command": show,
        "parameters": {"type": "object", "properties": {"a": {}, "b": {}, "missing": {}}},
    }
    result = declared(declaration, a="one two; $(id) `id` && id", b=[1, "*"])
    assert result.text == '[one two; $(id) `id` && id][x=[1, "*"]]'


def test_an_argument_cannot_pass_for_an_option(declared, tmp_path):
    result = declared({"command": ["sort", "{file}"]}, file="--output=owned")
    assert "would be read as an option" in result.text
    assert not (tmp_path / "owned").exists()
    assert declared({"command": ["printf", "--", "{x}"]}, x="-5").text == "-5"


def test_a_command_fails_loudly(declared):
    result = declared({"command": ["sh", "-c", "echo out; echo err >&2; exit 4"]})
    assert result.text == "out\nerr\n[exit code 4]"
    assert result.is_error
    assert "cannot be started" in declared({"command": ["/no/such/program"]}).text


def test_a_command_sees_no_secret_of_ours_but_what_it_was_given(declared, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("MY_KEY", "k3y")
    text = declared({"command": ["env"], "env": {"KEY": "${MY_KEY}"}}).text
    assert "KEY=k3y" in text
    assert "hf_secret" not in text


def test_a_command_is_ended_in_time_with_its_children(declared):
    result = declared({"command": ["sh", "-c", "sleep 61 & sleep 62"], "timeout_s": 0.5})
    assert result.text == "[stopped: it ran longer than 0.5 s]"


def test_a_command_reads_its_input(declared):
    assert declared({"command": ["cat"], "stdin": "say {x}"}, x="hi").text == "say hi"


@pytest.mark.usefixtures("needs_sandbox")
def test_a_command_can_run_in_the_sandbox(declared):
    assert declared({"command": ["ls", "/root/.ssh"], "sandbox": True}).is_error


@pytest.fixture
def service(web):
    def answer(handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
        found = {
            "path": handler.path,
            "body": body,
            "key": handler.headers.get("X-Key"),
            "list": [{"text": "deep"}],
        }
        reply(handler, json.dumps(found).encode(), status=500 if "fail" in handler.path else 200)

    return f"http://127.0.0.1:{web(answer)}"


LOCAL = {"http": {"allow_private": ["127.0.0.1"]}}


def test_a_request_gets_its_arguments_quoted(declared, service, monkeypatch):
    monkeypatch.setenv("MY_KEY", "k3y")
    declaration = {
        "url": service + "/{city}/now", "query": {"q": "{city}", "unit": "{unit}"}, "headers": {"X-Key": "${MY_KEY}"},
        "parameters": {"type": "object", "properties": {"city": {}, "unit": {}}},
    }  # fmt: skip
    found = json.loads(declared(declaration, top=LOCAL, city="a/../b?x=1&ü").text)
    assert found["path"] == "/a%2F..%2Fb%3Fx%3D1%26%C3%BC/now?q=a%2F..%2Fb%3Fx%3D1%26%C3%BC"
    assert found["key"] == "k3y"


def test_a_body_is_filled_in_and_a_part_of_the_answer_picked(declared, service):
    declaration = {
        "url": service,
        "method": "POST",
        "json": {"q": "{x}", "all": ["say {x}", 1]},
        "result": "body",
    }
    result = declared(declaration, top=LOCAL, x=['"', 2])
    assert json.loads(result.text) == {"q": ['"', 2], "all": ['say ["\\"", 2]', 1]}
    assert declared({"url": service, "result": "list.0.text"}, top=LOCAL).text == "deep"
    assert "has no 'list.5'" in declared({"url": service, "result": "list.5"}, top=LOCAL).text


def test_an_error_status_is_an_error(declared, service):
    assert declared({"url": service + "/fail"}, top=LOCAL).text.startswith("HTTP 500")


def test_declared_requests_do_not_reach_the_inside_either(declared, service):
    assert "not public" in declared({"url": service}).text


@pytest.mark.parametrize(("config", "fault"), [
    ({"tool": [{"name": "t"}]}, "tool.0: exactly one of command and url"),
    ({"tool": [{"name": "t", "command": ["x"], "url": "http://x"}]}, "exactly one"),
    ({"tool": [{"name": "t", "command": "rm -rf {x}"}]}, "tool.0.command"),
    ({"tool": [{"name": "t", "command": []}]}, "begins with the program"),
    ({"tool": [{"name": "t", "command": ["x", "{y}"]}]}, "{y} is no parameter; there are: none"),
    ({"tool": [{"name": "a b", "command": ["x"]}]}, "tool.0.name"),
    ({"tool": [{"name": "t", "command": ["x"], "effects": ["fly"]}]}, "effects"),
    ({"tool": [{"name": "t", "command": ["x"]}, {"name": "t", "command": ["y"]}]}, "two tools are called 't'"),
    ({"tool": [{"name": "calculate", "command": ["x"]}], "builtin": ["calculate"]}, "two tools are called"),
    ({"tool": [{"name": "t", "command": ["x"], "env": {"A": "${NOT_SET_ANYWHERE}"}}]}, "'NOT_SET_ANYWHERE' is not set"),
    ({"service": {"make_tea": {"command": ["x"]}}}, "service.make_tea"),
    ({"service": {"translate": {"command": ["x", "{txt}"]}}, "builtin": ["translate"]}, "{txt} is no parameter"),
    ({"sandbox": {"time_s": 0}}, "sandbox.time_s"),
    ({"sandox": {}}, "sandox: Extra inputs"),
    ([], "is not an object"),
    ({"tool": [{"name": "t", "command": ["x"], "parameters": {"$ref": "http://x"}}]}, "$ref"),
])  # fmt: skip
def test_a_configuration_with_a_mistake_is_refused_in_one_line(tmp_path, config, fault):
    path = tmp_path / "tools.json"
    path.write_text(
        json.dumps(config if isinstance(config, list) else {"builtin": [], "workspace": ".", **config})
    )
    with pytest.raises(ToolsError) as caught:
        open_toolbox(ToolboxOptions(config=path))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_toml_says_the_same_as_json(tmp_path):
    (tmp_path / "a.toml").write_text(
        'calendar = "c.ics"\n[sandbox]\ntime_s = 3\n[[tool]]\nname = "t"\ncommand = ["x"]\n'
    )
    (tmp_path / "a.json").write_text(
        json.dumps({"calendar": "c.ics", "sandbox": {"time_s": 3}, "tool": [{"name": "t", "command": ["x"]}]})
    )
    assert read_config(tmp_path / "a.toml") == read_config(tmp_path / "a.json")
