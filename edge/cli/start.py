"""The program's entry point: answers `--help` and `--version` before anything heavy is imported.

Importing typer alone takes six times as long as starting Python. The help text is kept beside the code; a test
renders it anew from the commands and compares.
"""

from __future__ import annotations

import os
import sys

from edge.errors import EdgeError


def main() -> None:
    """Runs the command line and exits: 0 ok, 1 a known error, 2 bad usage, 3 a verdict of fail, 130 Ctrl-C."""
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """The exit code for these arguments."""
    if not args or args in (["--help"], ["-h"]):
        # pathlib would take as long to import as everything else here together.
        with open(f"{os.path.dirname(__file__)}/help.txt", encoding="utf-8") as file:  # noqa: PTH120, PTH123
            sys.stdout.write(file.read())
        return 0
    if args == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"smoltools-edge {version('smoltools-edge')}\n")
        return 0
    return _run_app(args)


def _run_app(args: list[str]) -> int:
    from edge.cli.app import invoke

    try:
        return invoke(args)
    except EdgeError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
