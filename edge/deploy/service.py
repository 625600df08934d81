"""How the service is started anew: by systemd, or by a command of the user's."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge.deploy.errors import DeployError

_START_S = 1200.0  # the unit's own TimeoutStartSec is shorter


class Service(Protocol):
    """What an update does to a service."""

    def restart(self, change: Callable[[], None]) -> None:
        """Makes the change, at a moment when it does not hurt, and starts anew. Raises DeployError."""

    def why_dead(self) -> str | None:
        """Why it will never be well, if that is known."""


@dataclass(frozen=True, slots=True)
class SystemdService:
    """A unit. It is stopped while the change is made: what it holds is free then, and can be planned with."""

    unit: str

    def restart(self, change: Callable[[], None]) -> None:
        """Stops, changes, reads the unit's files again, starts; systemd waits until it is ready."""
        _run(["systemctl", "stop", self.unit])
        change()
        _run(["systemctl", "daemon-reload"])
        _run(["systemctl", "reset-failed", self.unit], must=False)
        _run(["systemctl", "start", self.unit])

    def why_dead(self) -> str | None:
        """A unit that has failed, or waits to be tried again."""
        found = _run(
            ["systemctl", "show", "-P", "ActiveState", "-P", "SubState", self.unit], must=False
        ).split()
        if found and (found[0] == "failed" or "auto-restart" in found):
            return f"{self.unit} is {' '.join(found)}; journalctl -u {self.unit} -n 30 says why"
        return None


@dataclass(frozen=True, slots=True)
class CommandService:
    """A command that starts the service anew, without a shell."""

    command: str

    def restart(self, change: Callable[[], None]) -> None:
        """Changes, then runs the command."""
        change()
        _run(shlex.split(self.command))

    def why_dead(self) -> str | None:
        """Nothing is known of it."""
        return None


def _run(command: list[str], *, must: bool = True) -> str:
    shown = shlex.join(command)
    try:
        # Not captured by a pipe: a command that leaves a server behind hands its end of it on.
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if not must else subprocess.DEVNULL,
            text=True, timeout=_START_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else f"it took over {_START_S:g} s"
        raise DeployError(f"{shown} could not be run: {reason}") from None
    if must and result.returncode != 0:
        raise DeployError(f"{shown} failed with exit code {result.returncode}")
    return result.stdout or ""
