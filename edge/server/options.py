"""What a server is told on construction; checked here, read from flags and environment by the command line."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import EdgeError

MIB = 1 << 20


class ServerError(EdgeError):
    """The server cannot be started as it was asked to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How requests are answered.

    model_id: what `/v1/models` and answers call the model.
    api_keys: any of them opens the door; none, and there is no door.
    cors_origins: web pages that may call, e.g. `https://example.org`; `*` for all. Other pages are refused.
    allowed_hosts: names a request's Host header may carry; None for any. Keeps web pages that point their own
        name at 127.0.0.1 from talking to a server without keys.
    deadline_s: a request is given up after that many seconds; it may ask for fewer.
    keep_alive_s: a stream that is silent for so long sends a comment, so that clients and proxies do not hang up.
    max_tokens: of an answer whose request names no limit.
    max_body_bytes: of one request; all requests that are being read together may take four times that.
    write_timeout_s: a client that does not read for so long is given up.
    """

    model_id: str = "model"
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] | None = None
    deadline_s: float = 600.0
    keep_alive_s: float = 15.0
    max_tokens: int = 1024
    max_answers: int = 8
    max_body_bytes: int = 4 * MIB
    read_timeout_s: float = 30.0
    write_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ServerError(f"{name} is {value}; allowed is {low:g} to {high:g}")
        if any(not key or not key.isprintable() or key != key.strip() for key in self.api_keys):
            raise ServerError("an API key is empty, or holds white space at its ends or control characters")


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("deadline_s", 0.1, 86_400),
    ("keep_alive_s", 0.05, 3_600),
    ("max_tokens", 1, 1 << 24),
    ("max_answers", 1, 128),
    ("max_body_bytes", 1_024, 1 << 30),
    ("read_timeout_s", 0.05, 3_600),
    ("write_timeout_s", 0.05, 3_600),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """Where a server listens. tls_cert, tls_key: PEM files. grace_s: for running answers when it is told to end."""

    host: str = "127.0.0.1"
    port: int = 8080
    tls_cert: str | None = None
    tls_key: str | None = None
    grace_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """What the device says of itself at one moment. None: it does not tell.

    troubles: sentences that make `/health` say degraded: memory pressure, throttling.
    throttled: now. memory_pressure_percent: of the last ten seconds, in which all tasks waited for memory.
    disk_wear_percent, disk_written_bytes, disk_errors: of the disk or file system that the system is on.
    """

    temperature_c: float | None = None
    throttled: bool | None = None
    power_w: float | None = None
    power_mode: str | None = None
    memory_available_bytes: int | None = None
    memory_pressure_percent: float | None = None
    disk_wear_percent: int | None = None
    disk_written_bytes: int | None = None
    disk_errors: int | None = None
    resident_bytes: int | None = None
    troubles: tuple[str, ...] = ()
