"""From an empty socket to exit code 0: listen, load, answer, finish what runs when told to end.

The socket is open before the model is loaded, so that a supervisor's `/health` gets its 503 and no refused
connection. Two signals end it at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import uvicorn
from fastapi import FastAPI

from edge.server.answers import EngineLike
from edge.server.app import create_app
from edge.server.door import is_loopback_host
from edge.server.options import DeviceReading, ListenOptions, ServerError, ServerOptions
from edge.server.service import Service
from edge.server.supervisor import Supervisor

T = TypeVar("T")
logger = logging.getLogger("edge.server")
_LAST_BYTES_S = 2.0  # for clients to read the end of their answers
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# The longest that one step of a model may take before the process counts as stuck: 512 tokens of prompt at the 4 tokens
# a second of a Raspberry Pi 4 are 128 s.
STUCK_STEP_S = 300.0
_SIGNS_OF_LIFE = 3  # within the watchdog's time


class HttpServer(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process by the signal it was sent."""

    @classmethod
    def over(cls, app: FastAPI, listen: ListenOptions) -> HttpServer:
        """A server for `app`; it is given its socket when it is run."""
        return cls(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=int(_LAST_BYTES_S),
                h11_max_incomplete_event_size=1 << 16,
                ssl_certfile=listen.tls_cert,
                ssl_keyfile=listen.tls_key,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def check_listen(options: ServerOptions, listen: ListenOptions) -> None:
    """Raises ServerError for what must not be served, or cannot."""
    if not options.api_keys and not is_loopback_host(listen.host):
        raise ServerError(
            f"the host {listen.host} can be reached by others, and there is no API key; "
            "give --api-key-file, or listen on 127.0.0.1"
        )
    if bool(listen.tls_cert) != bool(listen.tls_key):
        raise ServerError("TLS needs both --tls-cert and --tls-key")
    if listen.tls_cert and listen.tls_key:
        for name in (listen.tls_cert, listen.tls_key):
            if not Path(name).is_file():
                raise ServerError(f"the TLS file {name} does not exist")
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                listen.tls_cert, listen.tls_key
            )
        except (ssl.SSLError, OSError) as exc:
            raise ServerError(f"the TLS certificate and key cannot be used: {exc}") from None


def listening_socket(listen: ListenOptions) -> socket.socket:
    """A socket bound to the address; port 0 takes a free one. Raises ServerError."""
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, OverflowError, UnicodeError) as exc:
        raise ServerError(f"the host {listen.host!r} is not an address: {exc}") from None
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(256)
    except OSError as exc:
        sock.close()
        raise ServerError(
            f"cannot listen on {listen.host}, port {listen.port}: {exc.strerror}; try another --port"
        ) from None
    return sock


def serve(
    load: Callable[[], EngineLike],
    options: ServerOptions,
    listen: ListenOptions,
    *,
    device: Callable[[], DeviceReading] = DeviceReading,
    supervisor: Supervisor = Supervisor(),  # noqa: B008 - frozen
    on_listening: Callable[[str], None] = lambda url: None,
    on_ready: Callable[[EngineLike], None] = lambda engine: None,
) -> None:
    """Serves until SIGTERM or Ctrl-C. Raises ServerError, and what `load` raises.

    load: makes the engine, on a thread of its own. on_listening: told the address before that. on_ready: after it.
    supervisor: told the same, and regularly that all is well.
    """
    check_listen(options, listen)
    sock = listening_socket(listen)
    scheme = "https" if listen.tls_cert else "http"
    name = f"[{listen.host}]" if ":" in listen.host else listen.host
    app = create_app(None, options, device=device)
    on_listening(f"{scheme}://{name}:{sock.getsockname()[1]}")
    supervisor.tell_loading(options.model_id)
    asyncio.run(_Run(app, listen, load, on_ready, supervisor).run(sock))


class _Run:
    """One life of a server."""

    def __init__(
        self,
        app: FastAPI,
        listen: ListenOptions,
        load: Callable[[], EngineLike],
        on_ready: Callable[[EngineLike], None],
        supervisor: Supervisor,
    ) -> None:
        self._service: Service = app.state.service
        self._supervisor = supervisor
        self._server = HttpServer.over(app, listen)
        self._load, self._on_ready, self._grace_s = load, on_ready, listen.grace_s
        self._stop = asyncio.Event()

    async def run(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        listening = asyncio.create_task(self._server.serve(sockets=[sock]))
        loading = _in_daemon_thread(self._load)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((loading, stopping, listening), return_when=asyncio.FIRST_COMPLETED)
            if not loading.done() and not listening.done():
                _leave_at_once()  # the load cannot be interrupted, and nothing is lost
            engine = await loading
            _settle()
            self._service.install(engine)
            self._on_ready(engine)
            self._supervisor.tell_ready(f"{self._service.options.model_id}, n_ctx {engine.n_ctx}")
            living = asyncio.create_task(self._tell_alive())
            await asyncio.wait((stopping, listening), return_when=asyncio.FIRST_COMPLETED)
            self._supervisor.tell_stopping(engine.stats().running)
            await self._close(engine)
            living.cancel()
        finally:
            stopping.cancel()
            self._server.should_exit = True
            await listening

    async def _tell_alive(self) -> None:
        """As long as this loop runs and the model makes headway, if anybody watches."""
        while self._supervisor.watchdog_s is not None:
            stats = self._service.stats()
            if stats is None or stats.step_s < STUCK_STEP_S:
                self._supervisor.tell_alive()
            else:
                logger.error("a step of the model has taken %d s; the watchdog is left alone", stats.step_s)
            await asyncio.sleep(self._supervisor.watchdog_s / _SIGNS_OF_LIFE)

    def _on_signal(self) -> None:
        if self._stop.is_set():  # somebody is in a hurry
            self._service.give_up_all()
            self._server.force_exit = True
        self._stop.set()

    async def _close(self, engine: EngineLike) -> None:
        self._service.is_closing = True
        await _in_daemon_thread(lambda: engine.close(self._grace_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_BYTES_S):
                await self._service.drain()


def _in_daemon_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """The result of `work`. Python waits at its end for the threads of a pool, not for this one."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as exc:  # noqa: BLE001 - raised again where the future is awaited
            future.set_exception(exc)

    threading.Thread(target=run, name="edge-load", daemon=True).start()
    return asyncio.wrap_future(future)


def _settle() -> None:
    """Takes what is loaded out of the cycle collector's sight, for it stays.

    A full collection happens only when a quarter of all it watches is new. With the program's own 200,000 objects
    among these, cycles of thousands of requests would wait for it, and then everybody for its tenth of a second.
    """
    gc.collect()
    gc.freeze()


def _leave_at_once() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
