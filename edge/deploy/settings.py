"""The service's settings: its environment file, and where it can be called. Nothing is started or asked here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.deploy.errors import DeployError

STATE_DIR = Path("/var/lib/smoltools-edge")
ENVIRONMENT_FILE = Path("/etc/smoltools-edge/environment")
UNIT = "smoltools-edge.service"
MEMORY_CONF = Path("/etc/systemd/system") / f"{UNIT}.d" / "10-memory.conf"
_PREFIX = "SMOLTOOLS_EDGE_"
# What a server that listens everywhere is called at from its own machine.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the service answers. keys: any of them opens its door."""

    url: str
    key: str | None = None


def read_environment(path: Path) -> dict[str, str]:
    """The SMOLTOOLS_EDGE_ variables of a systemd environment file, without their prefix; none if there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        advice = "; use sudo" if isinstance(exc, PermissionError) else ""
        raise DeployError(f"the environment file {path} cannot be read: {reason}{advice}") from None
    found = re.findall(rf"^[ \t]*{_PREFIX}([A-Z_]+)=(.*)$", text, re.MULTILINE)
    return {name: _unquoted(value.strip()) for name, value in found}


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def endpoint_of(settings: Mapping[str, str]) -> Endpoint:
    """The address and a key. Raises DeployError for a key file that cannot be read."""
    host, port = settings.get("HOST", "127.0.0.1"), settings.get("PORT", "8080")
    host = _EVERYWHERE.get(host, host)
    scheme = "https" if settings.get("TLS_CERT") else "http"
    key = (settings.get("API_KEY") or "").split()
    if not key and (file := settings.get("API_KEY_FILE")):
        key = _keys(Path(file))
    return Endpoint(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", key[0] if key else None)


def _keys(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise DeployError(
            f"the service's key file {path} cannot be read: {reason}; without a key no call can be tried"
        ) from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
