"""`--state-cache`: the folder where `run` and `serve` keep prompt states between runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.engine.state_cache import StateCacheOptions

OFF = "off"


def state_cache_options(folder: str | None) -> StateCacheOptions | None:
    """The options for a folder, for the default one (None), or none for `off`."""
    if folder == OFF:
        return None
    from edge.engine.state_cache import StateCacheOptions

    return StateCacheOptions(folder=Path(folder).expanduser() if folder else _default_folder())


def _default_folder() -> Path:
    root = os.environ.get("SMOLTOOLS_EDGE_CACHE")
    if not root:
        import platformdirs

        root = platformdirs.user_cache_dir("smoltools-edge")
    return Path(root) / "states"
