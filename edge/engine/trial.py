"""Loads a model file in a child process first, so that a file which makes llama.cpp abort ends the child and not us.

The header check finds what files in the wild get wrong and says so well. It cannot know every assertion in
llama.cpp's loader (a vocabulary with a token twice is one), so a file that this machine has not seen yet is loaded
once and decodes a few tokens in a child. The result is remembered by path, size, time of change and llama.cpp's
version; the pages that the child read stay in the page cache for the load that follows.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from edge.engine.identity import memory_of, remember
from edge.errors import ModelError

_TIMEOUT_S = 900.0  # a 4B file from a slow SD card


def check_in_child(path: Path, module: str = "edge.engine.trial") -> None:
    """Raises ModelError if llama.cpp cannot load the file and decode with it. 0.7 s and the file's reading, once.

    module: what the child runs, with the path as its argument.
    """
    mark = memory_of(path, f"loaded/{module}")
    if mark.exists():
        return
    command = [sys.executable, "-m", module, str(path)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"{path} was not loaded within {_TIMEOUT_S:.0f} s; is the disk failing?") from None
    except OSError as exc:
        raise ModelError(f"{path} cannot be tried in a child process: {exc.strerror}") from exc
    if result.returncode != 0:
        raise ModelError(f"{path} cannot be loaded: {_reason(result)}; convert or download it again")
    remember(mark)


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    if result.returncode > 0:
        return lines[-1] if lines else "no reason given"
    name = signal.Signals(-result.returncode).name
    if name == "SIGKILL":
        return "the process was killed, most likely for lack of memory"
    failed = [line for line in lines if "GGML_ASSERT" in line or "what():" in line]
    detail = failed[-1].partition("GGML_ASSERT")[1:] if failed else ("", "")
    return f"llama.cpp aborts on it ({name}{': ' + ''.join(detail) if any(detail) else ''})"


def _try(path: Path) -> None:
    from edge.engine.context import Context, ContextOptions
    from edge.engine.model import Model, ModelOptions

    with Model(path, ModelOptions(use_extra_bufts=False), trusted=True) as model:
        context = Context(model, ContextOptions(n_ctx=min(32, model.n_ctx_train), n_batch=8))
        last = model.vocab.n_tokens - 1
        context.slots[0].decode([0, last, last // 2])
        context.slots[0].decode([last // 3])
        context.close()


def run_trial(attempt: Callable[[Path], None]) -> None:
    """The child's side: tries the file that the command line names, says what was wrong, exits."""
    try:
        attempt(Path(sys.argv[1]))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the parent says it
        sys.stderr.write(f"\n{str(exc).splitlines()[0] if str(exc) else type(exc).__name__}\n")
        sys.exit(1)


if __name__ == "__main__":
    run_trial(_try)
