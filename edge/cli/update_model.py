"""`update-model`: another model for the installed service, and back by itself when it is not well with it."""

from __future__ import annotations

import json as json_module
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.models import REF_HELP, JsonOption
from edge.cli.progress import tell
from edge.deploy.settings import ENVIRONMENT_FILE, MEMORY_CONF, STATE_DIR, UNIT
from edge.errors import RequestError


def update_model_command(
    ref: Annotated[str | None, typer.Argument(metavar="[REF]", help=REF_HELP, show_default=False)] = None,
    back: Annotated[
        bool, typer.Option("--back", help="Instead of REF: the model that was served before.")
    ] = False,
    state_dir: Annotated[Path, typer.Option(metavar="DIR", help="The service's folder.")] = STATE_DIR,
    environment: Annotated[
        Path, typer.Option(metavar="FILE", help="The service's settings: address, keys.")
    ] = ENVIRONMENT_FILE,
    restart_command: Annotated[
        str | None, typer.Option(metavar="COMMAND", help=f"Instead of systemctl restart {UNIT}.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, max=86_400, help="For the service to be well again.")
    ] = 600.0,
    json: JsonOption = False,
) -> None:
    """Give the service another model, and go back by itself when it is not well with it.

    Example: sudo smoltools-edge update-model smol-tools-4b-16k
    """
    from edge.deploy.placing import Place, fetch, try_out
    from edge.deploy.service import CommandService, SystemdService
    from edge.deploy.settings import endpoint_of, read_environment
    from edge.deploy.update import PREVIOUS, MemoryConf, Switch, read_link

    if (ref is None) is not back:
        raise RequestError("give a model's REF, or --back for the one before")
    settings = read_environment(environment)
    place = Place.of(state_dir)
    switch = Switch(
        models=place.models,
        service=CommandService(restart_command) if restart_command else SystemdService(UNIT),
        endpoint=endpoint_of(settings),
        timeout_s=timeout,
        memory=None
        if restart_command
        else MemoryConf(MEMORY_CONF, environment, lambda link: _limit_bytes(link, settings)),
        tell=tell,
    )
    old = switch.current()
    with _signals_interrupt():
        new = fetch(ref, place, tell) if ref else read_link(place.models / PREVIOUS)
        if new.resolve() == old.resolve():
            tell(f"{new.name} is served already; nothing was changed")
        else:
            try_out(new, place, tell)
            switch.to(new)
            tell(f"{new.name} is served; {old.name} stays, and --back returns to it")
    document = {"served": str(new), "before": str(old), "changed": new.resolve() != old.resolve()}
    typer.echo(json_module.dumps(document, indent=2) if json else new)


def _limit_bytes(link: Path, settings: Mapping[str, str]) -> int:
    """What the unit's MemoryMax should be, from the plan for the model with the service's own options."""
    from edge.cli.plan import make_plan
    from profiles.plan import Pins

    def number(name: str) -> int | None:
        return int(settings[name]) if settings.get(name, "").isdecimal() else None

    pins = Pins(
        n_ctx=number("N_CTX"), n_parallel=number("PARALLEL") or 1, kv_type=settings.get("KV_TYPE") or None
    )
    return make_plan(str(link.resolve()), pins).plan.memory_max_bytes


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and a lost terminal act like Ctrl-C, so that what was begun is taken back."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
