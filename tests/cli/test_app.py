from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edge.cli.app import render_help
from edge.models.catalogue import catalogue
from tests.cli.test_run import FAST


def test_the_kept_help_text_is_the_commands_own(cli):
    code, out, _ = cli("--help")
    assert code == 0
    assert out == render_help(), "run `make help-text`"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from edge.cli.start import run; run(['--help']); "
        "heavy = {'typer', 'llama_cpp', 'numpy', 'rich', 'pydantic', 'jinja2', 'pathlib'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["run", "bench", "pull", "models", "rm", "convert", "imatrix"])
def test_every_command_has_help_with_an_example(cli, command):
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert f"Example: smoltools-edge {command} " in " ".join(out.split("Options:")[0].split())


@pytest.mark.parametrize("command", ["--help", "models", "models --json"])
def test_a_full_disk_is_one_line(command):
    program = f"{sys.executable} -m edge.cli {command} > /dev/full"
    result = subprocess.run(program, shell=True, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run <&-", "error: the prompt is empty; give it as an argument or on standard input\n"),
        ("--help >&-", ""),
        ("rm nosuch 2>&-", ""),
    ],
)
def test_a_closed_stream_leads_nowhere(command, said):
    program = f"{sys.executable} -m edge.cli {command}"
    result = subprocess.run(program, shell=True, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0 if "help" in command else 1, said)


def test_version(cli):
    assert cli("--version")[1].startswith("smoltools-edge 0.")


def test_no_arguments_show_the_help(cli):
    assert "Commands:" in cli()[1]


def test_models_lists_the_catalogue_as_json(cli):
    rows = json.loads(cli("models", "--json")[1])
    assert list(dict.fromkeys(row["name"] for row in rows))[: len(catalogue())] == list(catalogue())
    keys = ["name", "ref", "installed", "path", "quantization", "size_bytes", "n_ctx_train"]
    assert all(list(row) == keys for row in rows)


def test_models_lists_the_catalogue_for_people(cli):
    out = cli("models")[1]
    assert all(name in out for name in ("demo", "smol-tools-4b-32k", "toolomni-qwen3-4b"))


def test_a_model_that_is_not_installed_cannot_be_removed(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path))
    code, _, err = cli("rm", "demo")
    assert (code, err) == (
        1,
        f"error: demo is not installed, neither in {tmp_path}/models nor in the hub's cache\n",
    )
    assert cli("rm", "someone/else")[0] == 1


def test_rm_removes_what_pull_put_there(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path))
    folder = tmp_path / "models" / "demo"
    folder.mkdir(parents=True)
    (folder / "demo-q4_1.gguf").write_bytes(b"12345")
    code, out, err = cli("rm", "demo")
    assert (code, out) == (0, "")
    assert err == f"removed {folder}/demo-q4_1.gguf\n5 bytes freed\n"
    assert not folder.exists()


@pytest.mark.model
class TestConfiguration:
    """config file < environment < flag."""

    @pytest.fixture
    def config(self, monkeypatch, tmp_path):
        path = tmp_path / "config.toml"
        monkeypatch.setenv("SMOLTOOLS_EDGE_CONFIG", str(path))
        return path

    def n_ctx(self, cli, *flags):
        return json.loads(cli("run", "hi", "--json", *FAST, *flags)[1])["plan"]["n_ctx"]

    def test_the_file_gives_defaults_the_environment_wins_and_the_flag_wins_over_both(
        self, cli, config, monkeypatch, tiny_model
    ):
        config.write_text(f'[run]\nmodel = "{tiny_model}"\nn_ctx = 512\n')
        assert self.n_ctx(cli) == 512
        monkeypatch.setenv("SMOLTOOLS_EDGE_N_CTX", "256")
        assert self.n_ctx(cli) == 256
        assert self.n_ctx(cli, "--n-ctx", "768") == 768

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("[run", "cannot be read"),
            ("[walk]\n", "has [walk]; allowed are "),
            ("[run]\nmodle = 'x'\n", "has run.modle; allowed are"),
            ("run = 3\n", "has [run]"),
        ],
    )
    def test_a_bad_file_is_one_line(self, cli, config, text, found):
        config.write_text(text)
        code, _, err = cli("run", "hi")
        assert code == 1
        assert found in err
        assert err.count("\n") == 1

    def test_a_file_that_was_named_and_is_not_there(self, cli, config):
        assert "cannot be read" in cli("run", "hi")[2]
