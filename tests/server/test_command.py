"""What `smoltools-edge serve` makes of its flags, files and environment, before any model is loaded."""

from __future__ import annotations

import logging

import pytest

import edge.cli.serve as serve_module
from edge.cli.serve import check_extra, model_name, read_keys
from edge.cli.session import close_logging
from edge.cli.start import run
from edge.errors import RequestError


@pytest.fixture(autouse=True)
def the_log_as_it_was():
    log = logging.getLogger("edge.server")
    handlers, propagate, level = log.handlers[:], log.propagate, log.level
    yield
    log.handlers, log.propagate = handlers, propagate
    log.setLevel(level)
    close_logging()


@pytest.fixture
def asked(monkeypatch):
    """Runs the command with serving replaced: exit code, and the options it would have served with."""
    found = {}

    def fake_serve(load, options, listen, *, log_json):
        found.update(load=load, options=options, listen=listen, log_json=log_json)

    monkeypatch.setattr(serve_module, "_serve", fake_serve)

    def call(*args):
        found.clear()
        return run(["serve", *map(str, args)]), found

    return call


def test_the_defaults_listen_on_this_machine_alone(asked):
    code, found = asked()
    assert code == 0
    assert (found["listen"].host, found["listen"].port) == ("127.0.0.1", 8080)
    assert found["options"].model_id == "demo"
    assert found["options"].api_keys == ()
    assert "127.0.0.1" in found["options"].allowed_hosts
    assert found["options"].cors_origins == ()


def test_flags_reach_the_server(asked):
    _, found = asked(
        "--port", 0, "--api-key", "a", "--api-key", "b", "--deadline", 9, "--max-tokens", 7, "--alias", "x",
        "--cors-origin", "https://a.example", "--max-body-mib", 0.5, "--grace", 3, "--log-json",
    )  # fmt: skip
    options = found["options"]
    assert options.api_keys == ("a", "b")
    assert options.allowed_hosts is None
    assert (options.deadline_s, options.max_tokens, options.model_id) == (9, 7, "x")
    assert (options.max_body_bytes, options.cors_origins) == (1 << 19, ("https://a.example",))
    assert (found["listen"].grace_s, found["log_json"]) == (3, True)


def test_keys_come_from_a_file_and_from_the_environment(asked, tmp_path, monkeypatch):
    path = tmp_path / "keys"
    path.write_text("# ours\n\nsk-one \nsk-two\n")
    assert asked("--api-key-file", path)[1]["options"].api_keys == ("sk-one", "sk-two")
    monkeypatch.setenv("SMOLTOOLS_EDGE_API_KEY", "sk-env")
    assert asked()[1]["options"].api_keys == ("sk-env",)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "holds no key"), ("# x\n", "holds no key"), (None, "cannot be read"), (b"\xff", "UTF-8")],
)
def test_a_key_file_without_keys_opens_no_door(tmp_path, content, message):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RequestError, match=message):
        read_keys(path)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--host", "0.0.0.0", "--port", "0"), "no API key"),
        (("--deadline", "0"), "deadline_s"),
        (("--deadline", "nan"), "deadline_s"),
        (("--max-tokens", "0"), "max_tokens"),
        (("--max-body-mib", "-1"), "max_body_bytes"),
        (("--tls-cert", "/nowhere.pem", "--port", "0"), "TLS"),
        (("--api-key", ""), "API key"),
        (("--host", "no.such.invalid", "--api-key", "k"), "not an address"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_1(capsys, args, message):
    assert run(["serve", *args]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_missing_extra_is_named_with_the_command_that_helps(monkeypatch):
    monkeypatch.setattr(serve_module, "_NEEDED", ("json", "no_such_module_anywhere"))
    with pytest.raises(
        RequestError, match=r"no_such_module_anywhere.*pip install 'smoltools-edge\[server\]'"
    ):
        check_extra()


@pytest.mark.parametrize(
    ("ref", "name"), [("demo", "demo"), ("/a/b/My-Q4.gguf", "My-Q4"), ("u/r:Q8_0", "u/r:Q8_0")]
)
def test_a_file_is_called_by_its_name_alone(ref, name):
    assert model_name(ref) == name
