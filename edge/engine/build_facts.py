"""What llama.cpp was built with, asked in a child process: `python -m edge.engine.build_facts`.

A build for another processor dies of an illegal instruction when it is loaded; the child does, and the parent says so.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata

from edge.engine.gpu import GpuDevice, gpu_backend, gpu_devices
from edge.errors import ModelError

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """version: of llama-cpp-python. kernels: ggml's names for what it was compiled to use (`NEON`, `DOTPROD`, `AVX2`).

    wheel_tag: of the installed wheel; `linux_...` was compiled on a machine like this one, `manylinux...` is somebody's
    ready-made one.
    """

    version: str
    wheel_tag: str
    backend: str | None
    kernels: tuple[str, ...]
    gpus: tuple[GpuDevice, ...]


def ask_build() -> BuildFacts:
    """The facts, from a child. Raises ModelError when llama.cpp cannot be loaded. 1 s."""
    command = [sys.executable, "-m", __name__]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"llama.cpp was not loaded within {_TIMEOUT_S:.0f} s") from None
    if result.returncode < 0:
        name = signal.Signals(-result.returncode).name
        why = "it was built for another processor" if name == "SIGILL" else "the process died"
        raise ModelError(f"llama.cpp cannot be loaded: {why} ({name})")
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"llama.cpp cannot be loaded: {last}")
    told = json.loads(result.stdout)
    gpus = tuple(GpuDevice(**gpu) for gpu in told.pop("gpus"))
    return BuildFacts(**told | {"kernels": tuple(told["kernels"]), "gpus": gpus})


def _facts() -> BuildFacts:
    from edge.engine.native import llama

    info = llama().llama_print_system_info().decode("utf-8", "replace")
    return BuildFacts(
        version=metadata.version("llama-cpp-python"),
        wheel_tag=_wheel_tag(),
        backend=gpu_backend()[0],
        kernels=tuple(re.findall(r"(\w+) = 1", info)),
        gpus=gpu_devices(),
    )


def _wheel_tag() -> str:
    text = metadata.distribution("llama-cpp-python").read_text("WHEEL") or ""
    tags = re.findall(r"^Tag: \S+-(\S+)$", text, re.MULTILINE)
    return tags[0] if tags else "unknown"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_facts())))
