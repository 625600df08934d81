"""The supported architectures: one module each, found by looking into this folder.

A module takes part by defining `ARCHITECTURE`; adding a family is adding a file.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from convert.architectures.base import Architecture, ModelConfig
from convert.errors import UnsupportedModel

__all__ = ["Architecture", "ModelConfig", "architecture_of", "architectures"]


@cache
def architectures() -> dict[str, Architecture]:
    """Every supported architecture by its name in config.json."""
    found: dict[str, Architecture] = {}
    for module in iter_modules(__path__, prefix=f"{__name__}."):
        architecture = getattr(import_module(module.name), "ARCHITECTURE", None)
        if isinstance(architecture, Architecture):
            found.update(dict.fromkeys(architecture.checkpoint_names, architecture))
    return found


def architecture_of(config: ModelConfig) -> Architecture:
    """The architecture that config.json names. Raises UnsupportedModel, listing the supported ones."""
    known = architectures()
    if config.architecture not in known:
        found = config.architecture or "no architecture"
        raise UnsupportedModel(f"config.json names {found}; supported: {', '.join(sorted(known))}")
    return known[config.architecture]
