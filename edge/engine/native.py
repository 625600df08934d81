"""The door to llama.cpp: loaded on first use, its log caught, its abort handler kept quiet.

Everything else in `edge.engine` gets the binding through `llama()`; nothing else in `edge` imports it.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger("edge.llama_cpp")

# ggml's numbering; CONT continues the line before it.
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
_LEVEL_CONT = 5


class _LogSink:
    """Joins the fragments that llama.cpp logs into lines; keeps the last problems for messages."""

    def __init__(self) -> None:
        self._partial = ""
        self._level = logging.INFO
        self.problems: deque[str] = deque(maxlen=8)

    def __call__(self, level: int, text: bytes, _user_data: object) -> None:
        if level != _LEVEL_CONT:
            self._level = _LEVELS.get(level, logging.INFO)
        self._partial += text.decode("utf-8", "replace")
        while "\n" in self._partial:
            line, self._partial = self._partial.split("\n", 1)
            if line.strip():
                if self._level >= logging.ERROR:
                    self.problems.append(line.strip())
                logger.log(self._level, "%s", line)


_sink = _LogSink()
_log_callback: Any = None  # ctypes would call freed memory if this went away


@functools.cache
def llama() -> Any:  # noqa: ANN401 - the binding is untyped
    """The llama_cpp module, with the backend started and the log redirected. Takes 0.4 s the first time."""
    global _log_callback
    # On an abort ggml starts gdb on the process, which can hang for minutes on a board.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    import llama_cpp

    _log_callback = llama_cpp.llama_log_callback(_sink)
    llama_cpp.llama_log_set(_log_callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def compute(work: Callable[[], T]) -> T:
    """The result of native work, done on a thread that ends with it.

    OpenMP keeps a team for each thread that has computed anything. With two teams on as many cores as one has, none
    waits by spinning any more, and each token of a small model takes 2.5 times as long. So the engine's own thread is
    to be the only one that lives on. An interrupt waits for the work: what it uses must not be freed beside it.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as exc:  # noqa: BLE001 - raised where the result is asked for
            result.set_exception(exc)

    thread = Thread(target=run, name="edge-compute")
    thread.start()
    try:
        thread.join()
    except BaseException:
        thread.join()
        raise
    return result.result()


@contextmanager
def problems_logged() -> Iterator[Callable[[], str]]:
    """Yields a function that gives the errors which llama.cpp logged inside the block, as one line."""
    _sink.problems.clear()
    yield lambda: "; ".join(_sink.problems) or "llama.cpp gave no reason"
