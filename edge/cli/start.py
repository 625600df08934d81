"""The program's entry point: answers `--help` and `--version` before anything heavy is imported.

Importing typer alone takes six times as long as starting Python. The help text is kept beside the code; a test
renders it anew from the commands and compares.
"""

from __future__ import annotations

import errno
import os
import sys

from edge.errors import EdgeError

# What a write to a pipe, a terminal or a full disk can end with.
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def main() -> None:
    """Runs the command line and exits: 0 ok, 1 a known error, 2 bad usage, 3 a verdict of fail, 130 Ctrl-C."""
    _open_closed_streams()
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """The exit code for these arguments."""
    try:
        code = _answer(args)
        sys.stdout.flush()
        return code
    except EdgeError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:  # the reader has gone (`| head`)
        _drop_output()
        return 1
    except OSError as exc:
        if exc.errno not in _CANNOT_WRITE:
            raise
        sys.stderr.write(f"error: the output cannot be written: {exc.strerror}\n")
        _drop_output()
        return 1


def _answer(args: list[str]) -> int:
    if not args or args in (["--help"], ["-h"]):
        # pathlib would take as long to import as everything else here together.
        with open(f"{os.path.dirname(__file__)}/help.txt", encoding="utf-8") as file:  # noqa: PTH120, PTH123
            sys.stdout.write(file.read())
        return 0
    if args == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"smoltools-edge {version('smoltools-edge')}\n")
        return 0
    from edge.cli.app import invoke

    return invoke(args)


def _open_closed_streams() -> None:
    """A stream that the caller closed (`<&-`, `>&-`) is None in Python; it leads nowhere instead."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def _drop_output() -> None:
    """What is left in the buffer goes nowhere: Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
