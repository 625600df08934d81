"""Tells systemd how the service is doing, in its `sd_notify` protocol; tells nobody where nobody listens.

One datagram a message, lines of `NAME=value`: https://www.freedesktop.org/software/systemd/man/sd_notify.html.
It restarts nothing itself and reads no environment of its own accord: the command line hands it in.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

logger = logging.getLogger("edge.server")


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Who started this process, if it wants to be told.

    address: of the supervisor's datagram socket, a path, or a name in the abstract namespace after an `@`.
    watchdog_s: it ends a service that was silent for so long; None, and it does not watch.
    """

    address: str | None = None
    watchdog_s: float | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Supervisor:
        """From the variables that systemd sets: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        is_meant = not pid or pid == str(os.getpid())
        watches = usec.isascii() and usec.isdecimal() and int(usec) > 0 and is_meant
        return cls(address, int(usec) / 1e6 if watches else None)

    def tell_loading(self, what: str) -> None:
        """The socket is open and the model is on its way; the unit is still starting."""
        self._send(f"STATUS=loading {_line(what)}")

    def tell_ready(self, what: str) -> None:
        """Requests are answered: the unit has started, and the watchdog begins to count."""
        self._send(f"READY=1\nSTATUS=serving {_line(what)}")

    def tell_alive(self) -> None:
        """Keeps the watchdog quiet once more."""
        self._send("WATCHDOG=1")

    def tell_stopping(self, n_running: int) -> None:
        """No new requests; what runs is finished."""
        self._send(f"STOPPING=1\nSTATUS=stopping, {n_running} answers are being finished")

    def _send(self, message: str) -> None:
        """A supervisor that cannot be reached is logged and not waited for."""
        if self.address is None:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), address)
        except OSError as exc:
            logger.warning("the supervisor cannot be told: %s", exc.strerror)


def _line(text: str) -> str:
    """A status is one line; a line feed in it would begin another field."""
    return " ".join(text.split())[:200]
