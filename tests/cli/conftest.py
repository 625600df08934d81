from __future__ import annotations

import io
import json
import sys

import pytest

from edge.chat.template import hermes_template
from edge.cli.session import close_logging
from edge.cli.start import run
from tests.tiny_gguf import write_gguf

PING = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}}
GET = {
    "name": "get",
    "parameters": {"type": "object", "properties": {"n": {"type": "null"}}, "additionalProperties": False},
}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A model that answers in milliseconds, and nonsense."""
    template = {"tokenizer.chat_template": hermes_template().source}
    return write_gguf(tmp_path_factory.mktemp("cli") / "tiny.gguf", change=template)


@pytest.fixture
def tools_file(tmp_path):
    """Two tools without freedom: their calls are short whatever the model wants."""
    path = tmp_path / "tools.json"
    ping = {
        **PING,
        "function": {**PING["function"], "parameters": {"type": "object", "additionalProperties": False}},
    }
    path.write_text(json.dumps([ping, GET]))
    return path


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs the program in this process: exit code, standard output, standard error."""

    def call(*args, stdin=None, tty=False):
        stream = io.TextIOWrapper(io.BytesIO((stdin or "").encode()))
        stream.isatty = lambda: tty
        monkeypatch.setattr(sys, "stdin", stream)
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    yield call
    close_logging()
