"""The one error of this room."""

from __future__ import annotations

from edge.errors import EdgeError


class DeployError(EdgeError):
    """A bundle that cannot be made, or an update that was not taken; the message says what holds now."""
