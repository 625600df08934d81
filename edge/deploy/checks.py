"""What `doctor` asks of the program and its installation: Python, llama.cpp's build, GPU, models, disk space, service.

The board itself is judged by `profiles.health`; both give findings of the same form. Nothing is changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge.deploy.settings import UNIT
from edge.deploy.update import CURRENT, UNFINISHED, read_link
from edge.engine.build_facts import BuildFacts
from edge.engine.intake import examine
from edge.errors import EdgeError, ModelError
from profiles.health import Finding

_OLDEST_PYTHON = (3, 11)
_GB = 1e9
_LITTLE_DISK_GB, _SOME_DISK_GB = 0.5, 4.0  # a 4B model in Q4_K_M has 3.1 GB
# The kernel's name of a feature, and ggml's of what is compiled for it.
_KERNELS = {
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "fma": "FMA",
}
_REBUILD = 'CMAKE_ARGS="{args}" pip install --no-cache-dir --force-reinstall --no-deps llama-cpp-python'
_CUDA_ARGS = "-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=87"


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """The interpreter, its size of pointers, and where it lives."""
    found = f"{'.'.join(map(str, version))}, {sys.prefix}"
    if version[:2] < _OLDEST_PYTHON:
        return Finding("python", "fail", found, "3.11 or newer is needed: python3.11 -m venv")
    if sys.maxsize < 1 << 32:
        return Finding(
            "python", "fail", f"{found}, 32-bit", "install a 64-bit system; models of 4 GB do not fit"
        )
    return Finding("python", "ok", found)


def check_build(build: BuildFacts, features: tuple[str, ...], *, is_jetson: bool) -> Iterator[Finding]:
    """What llama.cpp can use of this machine. features: the processor's, in the kernel's words."""
    origin = "compiled on a machine like this" if build.wheel_tag.startswith("linux_") else build.wheel_tag
    found = f"llama-cpp-python {build.version}, {build.backend or 'CPU only'}, {origin}"
    unused = [name for name in features if name in _KERNELS and _KERNELS[name] not in build.kernels]
    if is_jetson and build.backend is None:
        advice = (
            f"pip compiled it silently without CUDA: {_REBUILD.format(args=_CUDA_ARGS)}, or jetson/install.sh"
        )
        yield Finding("llama.cpp", "warn", f"{found}, on a Jetson", advice)
    elif unused:
        advice = f"built for an older processor: {_REBUILD.format(args='-DGGML_NATIVE=ON')}"
        yield Finding("llama.cpp", "warn", f"{found}, without kernels for {', '.join(unused)}", advice)
    else:
        yield Finding("llama.cpp", "ok", found)
    yield _gpu(build, is_jetson=is_jetson)


def _gpu(build: BuildFacts, *, is_jetson: bool) -> Finding:
    if build.gpus:
        told = (
            f"{gpu.name}, {gpu.free_bytes / _GB:.1f} of {gpu.total_bytes / _GB:.1f} GB free"
            for gpu in build.gpus
        )
        return Finding("gpu", "ok", "; ".join(told))
    if build.backend is None:
        found = "not used: llama.cpp was built without"
        return Finding("gpu", "warn", found, "see llama.cpp") if is_jetson else Finding("gpu", "ok", found)
    advice = "the user must be in the groups video and render; in a container: --runtime nvidia"
    return Finding("gpu", "fail", f"the {build.backend} backend sees none", advice)


def check_models(files: Mapping[str, Path]) -> Iterator[Finding]:
    """Each installed file by its REF: whole, and of a kind that runs. Headers and sizes; the weights are not read."""
    if not files:
        yield Finding(
            "models",
            "warn",
            "none is installed",
            "smoltools-edge pull demo, or another of smoltools-edge models",
        )
    good = []
    for ref, path in files.items():
        try:
            examine(path)
            good.append(ref)
        except ModelError as exc:
            yield Finding(
                f"model {ref}", "fail", str(exc), f"smoltools-edge rm {ref}; smoltools-edge pull {ref}"
            )
    if good:
        yield Finding("models", "ok", f"{len(good)} whole: {', '.join(good)}")


def check_space(folder: Path) -> Finding:
    """Room for models where they are kept."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free / _GB
    found, advice = f"{free:.1f} GB free at {folder}", "remove models with smoltools-edge rm"
    if free < _LITTLE_DISK_GB:
        return Finding("disk space", "fail", found, advice)
    if free < _SOME_DISK_GB:
        return Finding("disk space", "warn", f"{found}, too little for a 4B model beside another", advice)
    return Finding("disk space", "ok", found)


def check_service(state_dir: Path) -> Iterator[Finding]:
    """The installed service, its model, and whether an update was left half done."""
    shown = _systemctl_show()
    if shown is None:
        yield Finding("service", "ok", "systemd does not run here")
    else:
        yield judge_service(shown)
    models = state_dir / "models"
    if not os.access(models, os.R_OK | os.X_OK):
        return
    try:
        yield Finding("service model", "ok", read_link(models / CURRENT).name)
    except EdgeError as exc:
        yield Finding("service model", "fail", str(exc), "sudo smoltools-edge update-model REF")
    if (models / UNFINISHED).exists():
        advice = "sudo smoltools-edge update-model --back, or update-model REF again"
        yield Finding("update", "warn", "the last one was broken off and nobody looked after it", advice)


def judge_service(shown: Mapping[str, str]) -> Finding:
    """What `systemctl show` says of the unit."""
    state, restarts = shown.get("ActiveState", ""), shown.get("NRestarts", "0")
    if shown.get("LoadState") == "not-found":
        return Finding("service", "ok", "not installed")
    found = f"{state} ({shown.get('SubState', '')})"
    if state == "failed" or shown.get("SubState") == "auto-restart":
        advice = f"journalctl -u {UNIT} -n 50; then sudo systemctl restart {UNIT}"
        return Finding("service", "fail", f"{found}, {shown.get('Result', '')}", advice)
    if restarts not in ("", "0"):
        return Finding(
            "service", "warn", f"{found}, restarted {restarts} times", f"journalctl -u {UNIT} -p warning"
        )
    if state == "inactive":
        return Finding("service", "warn", found, f"sudo systemctl start {UNIT}")
    return Finding("service", "ok", found)


def _systemctl_show() -> dict[str, str] | None:
    names = "LoadState,ActiveState,SubState,Result,NRestarts"
    try:
        result = subprocess.run(
            ["systemctl", "show", "-p", names, UNIT], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    pairs = (line.partition("=") for line in result.stdout.splitlines())
    found = {name: value for name, _, value in pairs}
    return found if "LoadState" in found else None
