"""`doctor`: every check a line, ok, warn or fail, with what to do."""

from __future__ import annotations

import dataclasses
import json as json_module
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import JsonOption
from edge.cli.plan import THIS_MACHINE, PlanError

if TYPE_CHECKING:
    from profiles.health import Finding

_NAME = 16


def doctor_command(
    json: JsonOption = False,
    root: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Only the board's health, from /proc and /sys below DIR, a recording."
        ),
    ] = THIS_MACHINE,
) -> None:
    """Check the board, the program and the service. Exit code 1 if something fails.

    Example: smoltools-edge doctor --json
    """
    from profiles.health import findings, read_health

    if not root.is_dir():
        raise PlanError(f"{root} is not a folder; --root takes one with proc, sys and etc in it")
    found = [*(_program() if root == THIS_MACHINE else ()), *findings(read_health(root))]
    worst = max((finding.state for finding in found), key=("ok", "warn", "fail").index, default="ok")
    if json:
        checks = [dataclasses.asdict(finding) for finding in found]
        typer.echo(json_module.dumps({"state": worst, "checks": checks}, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(map(_line, found)))
    if worst == "fail":
        raise typer.Exit(1)


def _line(finding: Finding) -> str:
    advice = f" -> {finding.advice}" if finding.advice else ""
    return f"{finding.state:<5} {finding.name:<{_NAME}} {finding.found}{advice}"


def _program() -> Iterator[Finding]:
    from edge.deploy.checks import check_build, check_models, check_python, check_service, check_space
    from edge.deploy.settings import STATE_DIR
    from edge.deploy.update import CURRENT
    from edge.engine.build_facts import ask_build
    from edge.errors import ModelError
    from edge.models.folders import models_dir
    from edge.models.installed import all_installed
    from profiles.board import read_board
    from profiles.cpu import read_cpu
    from profiles.health import Finding
    from profiles.reading import Tree

    yield check_python()
    tree = Tree(THIS_MACHINE)
    try:
        is_jetson = read_board(tree).kind.value == "jetson"
        yield from check_build(ask_build(), read_cpu(tree).features.value or (), is_jetson=is_jetson)
    except ModelError as exc:
        yield Finding(
            "llama.cpp", "fail", str(exc), "build it on this machine: jetson/install.sh, or make demo"
        )
    installed = {there.ref: there.path for there in all_installed()}
    # A board that only serves has none of its own, and lacks none.
    if installed or not os.access(STATE_DIR / "models" / CURRENT, os.R_OK):
        yield from check_models(installed)
    yield check_space(models_dir())
    yield from check_service(STATE_DIR)
