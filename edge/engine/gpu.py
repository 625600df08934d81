"""Which GPU llama.cpp can offload to. Looks for its libraries first, so that the answer "none" costs nothing.

Loading llama.cpp takes longer than everything else that a plan needs; it happens here only where it was built
with a GPU backend.
"""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from pathlib import Path

# Names of ggml's backend libraries, libggml-<name>.so or .dylib.
_BACKENDS = ("cuda", "hip", "vulkan", "metal", "sycl", "musa", "opencl", "cann")
_GPU, _INTEGRATED_GPU = 1, 2  # enum ggml_backend_dev_type in ggml-backend.h: CPU, GPU, IGPU, ACCEL


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """A device as ggml reports it. integrated: it shares the machine's memory."""

    name: str
    total_bytes: int
    free_bytes: int
    integrated: bool


def gpu_backend() -> tuple[str | None, str]:
    """The GPU backend that llama.cpp was built with, if any, and the folder or file that says so."""
    folder = _library_folder()
    for name in _BACKENDS:
        libraries = sorted(folder.glob(f"*ggml-{name}.*"))
        if libraries:
            return name, str(libraries[0])
    return None, str(folder)


def _library_folder() -> Path:
    found = importlib.util.find_spec("llama_cpp")  # looks for it and does not import it
    places = found.submodule_search_locations if found else None
    return Path(places[0] if places else "llama_cpp") / "lib"


def gpu_devices() -> tuple[GpuDevice, ...]:
    """The GPUs that ggml sees. Loads llama.cpp: 0.4 s, and what the GPU's own runtime takes."""
    from edge.engine.native import llama

    llama()  # registers the backends
    lib = _ggml()
    found = []
    for index in range(lib.ggml_backend_dev_count()):
        device = lib.ggml_backend_dev_get(index)
        kind = lib.ggml_backend_dev_type(device)
        if kind not in (_GPU, _INTEGRATED_GPU):
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        lib.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        name = lib.ggml_backend_dev_description(device).decode("utf-8", "replace")
        found.append(GpuDevice(name, total.value, free.value, kind == _INTEGRATED_GPU))
    return tuple(found)


def _ggml() -> ctypes.CDLL:
    """ggml's device list, which the binding does not wrap."""
    folder = _library_folder()
    lib = ctypes.CDLL(str(next(path for path in sorted(folder.glob("libggml.*")) if path.exists())))
    # The functions live in libggml-base, which libggml depends on.
    base = ctypes.CDLL(str(next(path for path in sorted(folder.glob("libggml-base.*")) if path.exists())))
    lib.ggml_backend_dev_count.restype = ctypes.c_size_t
    lib.ggml_backend_dev_get.restype = ctypes.c_void_p
    lib.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for name, restype, argtypes in (
        ("ggml_backend_dev_type", ctypes.c_int, [ctypes.c_void_p]),
        ("ggml_backend_dev_description", ctypes.c_char_p, [ctypes.c_void_p]),
        ("ggml_backend_dev_memory", None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]),
    ):
        function = getattr(base, name)
        function.restype, function.argtypes = restype, argtypes
        setattr(lib, name, function)
    return lib
