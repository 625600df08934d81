"""What `smoltools-edge serve` makes of its flags, files and environment, before any model is loaded."""

from __future__ import annotations

import logging
import os
import sys

import pytest
import typer

import edge.cli.serve as serve_module
from edge.cli.app import make_app
from edge.cli.serve import check_extra, is_journal, model_name, read_keys
from edge.cli.session import close_logging
from edge.cli.start import run
from edge.errors import RequestError
from edge.server.logs import set_up_server_log


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


def test_a_link_is_called_like_the_file_it_leads_to(tmp_path):
    (tmp_path / "current").symlink_to("models/new.gguf")
    (tmp_path / "other").symlink_to(tmp_path / "current")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert model_name(str(tmp_path / "other")) == "new"
    assert model_name(str(tmp_path / "round")) == str(tmp_path / "round")


def test_every_option_of_the_server_can_stand_in_an_environment_file():
    command = typer.main.get_command(make_app(["serve"])).commands["serve"]
    without = [option.name for option in command.params if not option.envvar and option.name != "help"]
    assert without == ["verbose"]


def test_options_from_the_environment_reach_the_server(asked, monkeypatch):
    for name, value in {
        "HOST": "::1", "PORT": "9000", "ALIAS": "mine", "GRACE": "7", "MAX_BODY_MIB": "1", "LOG_JSON": "1",
        "CORS_ORIGIN": "https://a.example", "ALLOWED_HOST": "board.local", "N_CTX": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SMOLTOOLS_EDGE_{name}", value)
    code, found = asked()
    assert code == 0
    listen, options = found["listen"], found["options"]
    assert (listen.host, listen.port, listen.grace_s, found["log_json"]) == ("::1", 9000, 7, True)
    assert (options.model_id, options.max_body_bytes) == ("mine", 1 << 20)
    assert options.cors_origins == ("https://a.example",)
    assert "board.local" in options.allowed_hosts


def test_the_journal_is_known_by_device_and_inode(capfd):
    here = os.fstat(2)
    with capfd.disabled():
        assert not is_journal("")
    assert not is_journal("1:2")
    assert is_journal(f"{here.st_dev}:{here.st_ino}") is (os.fstat(sys.stderr.fileno()) == here)


@pytest.mark.parametrize(
    ("level", "as_json", "begins"),
    [
        (logging.INFO, False, "<6>event=hello"),
        (logging.WARNING, False, "<4>event=hello"),
        (logging.ERROR, True, '<3>{"time": '),
        (logging.DEBUG + 1, False, ""),
    ],
)
def test_journald_gets_the_level_in_front_and_no_time(capsys, level, as_json, begins):
    set_up_server_log(as_json=as_json, to_journal=True)
    logging.getLogger("edge.server").log(level, "hello")
    assert capsys.readouterr().err.startswith(begins)
