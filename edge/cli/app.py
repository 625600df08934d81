"""The typer app: which commands there are, and the configuration file's defaults for them."""

from __future__ import annotations

import importlib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from edge.errors import RequestError

# In the order of --help; module and function of each.
COMMANDS = {
    "run": "edge.cli.run:run_command",
    "replay": "edge.cli.replay:replay_command",
    "serve": "edge.cli.serve:serve_command",
    "profile": "edge.cli.profile:profile_command",
    "convert": "edge.cli.convert:convert_command",
    "imatrix": "edge.cli.imatrix:imatrix_command",
    "check": "edge.cli.check:check_command",
    "bench": "edge.cli.bench:bench_command",
    "pull": "edge.cli.models:pull_command",
    "models": "edge.cli.models:models_command",
    "rm": "edge.cli.models:rm_command",
    "doctor": "edge.cli.doctor:doctor_command",
    "bundle": "edge.cli.bundle:bundle_command",
    "update-model": "edge.cli.update_model:update_model_command",
    "retrieval-eval": "edge.cli.retrieval_eval:retrieval_eval_command",
    "open-world-eval": "edge.cli.open_world_eval:open_world_eval_command",
}


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The program with these commands. Importing only the one that is asked for saves a fifth of a second."""
    app = typer.Typer(
        name="smoltools-edge",
        help="Run small tool-calling language models on the device in front of you.",
        epilog='Example: smoltools-edge run --tools tools.json "What is the weather in Paris?"',
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode=None,  # rich would triple the time of every --help
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_no_options)  # keeps a single command a command
    for name in names:
        module, _, function = COMMANDS[name].partition(":")
        app.command(name)(getattr(importlib.import_module(module), function))
    return app


def _no_options() -> None:
    pass


def invoke(args: list[str]) -> int:
    """Runs a command; the exit code. Lets EdgeError through."""
    # A configuration file is checked against the options of all commands.
    alone = args[0] in COMMANDS and _config_path() is None if args else False
    command = typer.main.get_command(make_app(args[:1] if alone else COMMANDS))
    defaults = load_config({name: sub.params for name, sub in command.commands.items()})  # type: ignore[attr-defined]
    try:
        command.main(args, prog_name="smoltools-edge", default_map=defaults)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    return 0


def render_help() -> str:
    """The text of `--help` at 100 columns, which is kept in help.txt (see `start`)."""
    command = typer.main.get_command(make_app())
    context = command.make_context(
        "smoltools-edge", [], resilient_parsing=True, terminal_width=100, max_content_width=100
    )
    with context:
        return command.get_help(context) + "\n"


def load_config(commands: dict[str, list[Any]]) -> dict[str, dict[str, object]]:
    """Defaults by command and parameter from the user's config.toml; flags and environment win over them.

    The file is SMOLTOOLS_EDGE_CONFIG, or config.toml in the user's configuration folder. Raises RequestError for
    a file that is not TOML and for unknown sections and keys.
    """
    path = _config_path()
    if path is None:
        return {}
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError) as exc:
        raise RequestError(f"the configuration {path} cannot be read: {exc}") from None
    for section, values in config.items():
        if section not in commands or not isinstance(values, dict):
            raise RequestError(
                f"the configuration {path} has [{section}]; allowed are {', '.join(sorted(commands))}"
            )
        allowed = {param.name for param in commands[section]}
        if unknown := set(values) - allowed:
            raise RequestError(
                f"the configuration {path} has {section}.{min(unknown)}; allowed are {', '.join(sorted(allowed))}"
            )
    return config


def _config_path() -> Path | None:
    named = os.environ.get("SMOLTOOLS_EDGE_CONFIG")
    if named:
        return Path(named)
    import platformdirs

    path = Path(platformdirs.user_config_dir("smoltools-edge")) / "config.toml"
    return path if path.exists() else None
