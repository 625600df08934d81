"""`serve`: an OpenAI-compatible endpoint over one model."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import (
    DeviceProfileOption,
    GpuLayersOption,
    KvTypeOption,
    ModelOption,
    NCtxOption,
    StateCacheOption,
    ThreadsOption,
    VerboseOption,
)
from edge.cli.plan import open_planned
from edge.cli.progress import tell, warn
from edge.cli.session import set_up_logging
from edge.cli.state_cache import state_cache_options
from edge.errors import RequestError
from profiles.plan import Pins

if TYPE_CHECKING:
    from edge.engine.engine import Engine
    from edge.server.options import ListenOptions, ServerOptions

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")
_LINKS = 8  # that are followed, one to the next


def serve_command(
    model: ModelOption = "demo",
    host: Annotated[
        str, typer.Option(envvar="SMOLTOOLS_EDGE_HOST", help="Others than this machine need an API key.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="SMOLTOOLS_EDGE_PORT", min=0, max=65535, help="0 takes a free one.")
    ] = 8080,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            envvar="SMOLTOOLS_EDGE_API_KEY",
            help="Key that clients must send. Other users of this machine see it here; better a file.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="SMOLTOOLS_EDGE_API_KEY_FILE", help="File of keys, one a line."),
    ] = None,
    parallel: Annotated[
        int,
        typer.Option(
            metavar="N", envvar="SMOLTOOLS_EDGE_PARALLEL", min=1, max=64, help="Answers made at once."
        ),
    ] = 1,
    max_queue: Annotated[
        int,
        typer.Option(
            metavar="N",
            envvar="SMOLTOOLS_EDGE_MAX_QUEUE",
            min=0,
            max=10_000,
            help="Requests that may wait; more get a 429.",
        ),
    ] = 16,
    deadline: Annotated[
        float,
        typer.Option(metavar="SECONDS", envvar="SMOLTOOLS_EDGE_DEADLINE", help="For a request, at most."),
    ] = 600.0,
    max_tokens: Annotated[
        int,
        typer.Option(
            metavar="N", envvar="SMOLTOOLS_EDGE_MAX_TOKENS", help="Of answers whose request names no limit."
        ),
    ] = 1024,
    alias: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", envvar="SMOLTOOLS_EDGE_ALIAS", help="What the model is called; default: its REF."
        ),
    ] = None,
    n_ctx: NCtxOption = None,
    threads: ThreadsOption = None,
    kv_type: KvTypeOption = None,
    gpu_layers: GpuLayersOption = None,
    device_profile: DeviceProfileOption = None,
    state_cache: StateCacheOption = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            envvar="SMOLTOOLS_EDGE_CORS_ORIGIN",
            help="Web pages that may call, e.g. https://example.org; repeatable.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            envvar="SMOLTOOLS_EDGE_ALLOWED_HOST",
            help="Further Host header that is answered to; repeatable.",
        ),
    ] = None,
    max_body_mib: Annotated[
        float,
        typer.Option(
            metavar="MIB", envvar="SMOLTOOLS_EDGE_MAX_BODY_MIB", help="Size of one request at most."
        ),
    ] = 4.0,
    grace: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            envvar="SMOLTOOLS_EDGE_GRACE",
            min=0,
            max=3600,
            help="For running answers after SIGTERM.",
        ),
    ] = 30.0,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", envvar="SMOLTOOLS_EDGE_TLS_CERT", help="Certificate, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="SMOLTOOLS_EDGE_TLS_KEY", help="Its private key, PEM."),
    ] = None,
    log_json: Annotated[
        bool,
        typer.Option(
            "--log-json", envvar="SMOLTOOLS_EDGE_LOG_JSON", help="The log as JSON, one object a line."
        ),
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Serve a model to OpenAI clients: http://127.0.0.1:8080/v1.

    Example: smoltools-edge serve --model smol-tools-4b --parallel 4
    """
    check_extra()
    from edge.server.door import is_loopback_host, local_hosts
    from edge.server.options import MIB, ListenOptions, ServerOptions

    set_up_logging(verbose)
    keys = (*(api_key or ()), *(read_keys(api_key_file) if api_key_file else ()))
    options = ServerOptions(
        model_id=alias or model_name(model),
        api_keys=keys,
        cors_origins=tuple(cors_origin or ()),
        allowed_hosts=local_hosts(host, allowed_host or ()) if is_loopback_host(host) and not keys else None,
        deadline_s=deadline,
        max_tokens=max_tokens,
        max_body_bytes=int(max_body_mib * MIB),
    )
    listen = ListenOptions(
        host=host,
        port=port,
        tls_cert=str(tls_cert) if tls_cert else None,
        tls_key=str(tls_key) if tls_key else None,
        grace_s=grace,
    )

    states = state_cache_options(state_cache)

    def load() -> Engine:
        pins = Pins(
            n_ctx=n_ctx, n_threads=threads, kv_type=kv_type, n_gpu_layers=gpu_layers, n_parallel=parallel
        )
        engine, _ = open_planned(
            model, pins, max_queue=max_queue, profile_file=device_profile, state_cache=states
        )
        warn(engine.model.path, engine.warnings)
        return engine

    _serve(load, options, listen, log_json=log_json)


def _serve(
    load: Callable[[], Engine], options: ServerOptions, listen: ListenOptions, *, log_json: bool
) -> None:
    from edge.cli.device_reading import read_device
    from edge.server.lifecycle import serve
    from edge.server.logs import set_up_server_log
    from edge.server.supervisor import Supervisor

    set_up_server_log(as_json=log_json, to_journal=is_journal(os.environ.get("JOURNAL_STREAM", "")))
    serve(
        load,
        options,
        listen,
        device=read_device,
        supervisor=Supervisor.from_environment(os.environ),
        on_listening=lambda url: tell(f"listening on {url}; loading {options.model_id}"),
        on_ready=lambda engine: tell(f"ready: {options.model_id}, n_ctx {engine.n_ctx}"),
    )


def check_extra() -> None:
    """Raises RequestError, with the command that helps, when the server's packages are not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RequestError(
            f"serve needs {', '.join(missing)}, which the extra 'server' brings: pip install 'smoltools-edge[server]'"
        )


def model_name(ref: str) -> str:
    """What a model is called to clients: a file's name without its folder, any other reference as it is.

    A link of another name, as a service has for its model of the day, is called like the file it leads to.
    """
    for _ in range(_LINKS):
        if not ref.endswith(".gguf") and os.path.islink(ref):  # noqa: PTH114 - False for what is no path at all
            ref = str(Path(ref).parent / Path(ref).readlink())
    return Path(ref).stem if ref.endswith(".gguf") else ref


def is_journal(stream: str) -> bool:
    """Whether standard error goes to journald: systemd tells device and inode of its socket in JOURNAL_STREAM."""
    try:
        here = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return stream == f"{here.st_dev}:{here.st_ino}"


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file; empty lines and those that begin with # are skipped. Raises RequestError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise RequestError(f"the key file {path} cannot be read: {reason}") from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise RequestError(f"the key file {path} holds no key; one a line is needed")
    return keys
