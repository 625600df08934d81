"""Runs `convert.native` in a child process: a native abort there is one error here, and its memory is returned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from convert.errors import ConvertError

OnProgress = Callable[[int, int], None]


class NativeFailure(ConvertError):
    """llama.cpp refused or died; callers add what they were doing."""


def run_native(
    task: str, request: dict[str, Any], on_progress: OnProgress = lambda done, total: None
) -> dict[str, Any]:
    """The result of one task of `convert.native`. Raises NativeFailure with llama.cpp's reason."""
    command = [sys.executable, "-P", "-m", "convert.native"]
    with (
        tempfile.TemporaryFile() as words,  # a pipe that nobody reads would block a talkative library
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, env=_environment()
        ) as process,
    ):
        try:
            return _converse(process, {**request, "task": task}, on_progress, words)
        finally:
            process.kill()  # no effect on one that has ended


def _environment() -> dict[str, str]:
    """This process's environment, with this very package first and llama.cpp's debugger hook off."""
    root = str(Path(__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GGML_NO_BACKTRACE": "1"}


def _converse(
    process: subprocess.Popen[bytes], request: dict[str, Any], on_progress: OnProgress, words: IO[bytes]
) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request).encode())
    process.stdin.close()
    for line in process.stdout:
        message = json.loads(line)
        if "progress" in message:
            on_progress(message["progress"]["done"], message["progress"]["total"])
        elif "error" in message:
            raise NativeFailure(str(message["error"]))
        else:
            result: dict[str, Any] = message["result"]
            return result
    death = _death(process.wait())
    words.seek(0)
    last_words = words.read().decode("utf-8", "replace").strip().splitlines()
    raise NativeFailure(f"llama.cpp {death}: {(last_words or ['without a word'])[-1]}")


def _death(code: int) -> str:
    if code < 0:
        return f"died of {signal.Signals(-code).name}"
    return f"ended with code {code}"
