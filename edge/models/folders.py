"""Where this program keeps model files of its own."""

from __future__ import annotations

import os
from pathlib import Path


def models_dir() -> Path:
    """SMOLTOOLS_EDGE_CACHE or the user's cache folder; a folder for each model, named like it."""
    root = os.environ.get("SMOLTOOLS_EDGE_CACHE")
    if root:
        return Path(root) / "models"
    import platformdirs

    return Path(platformdirs.user_cache_dir("smoltools-edge")) / "models"
