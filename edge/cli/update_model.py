"""`update-model`: another model for the installed service, and back by itself when it is not well with it."""

from __future__ import annotations

import json as json_module
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import REF_HELP, JsonOption
from edge.cli.progress import tell
from edge.deploy.settings import ENVIRONMENT_FILE, MEMORY_CONF, STATE_DIR, UNIT
from edge.errors import RequestError

if TYPE_CHECKING:
    from edge.deploy.placing import Place
    from edge.deploy.update import Switch


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
    print_limit: Annotated[
        bool,
        typer.Option(
            "--print-limit", help="Instead of REF: only print the unit's memory limit for what is served."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Give the service another model, and go back by itself when it is not well with it.

    Example: sudo smoltools-edge update-model smol-tools-4b-16k
    """
    from edge.deploy.placing import Place, limit_bytes
    from edge.deploy.service import CommandService, SystemdService
    from edge.deploy.settings import endpoint_of, read_environment
    from edge.deploy.update import CURRENT, MemoryConf, Switch

    if (ref is not None) + back + print_limit != 1:
        raise RequestError("give a model's REF, or --back for the one before")
    settings = read_environment(environment)
    place = Place.of(state_dir)
    memory = MemoryConf(MEMORY_CONF, environment, lambda link: limit_bytes(link, place, settings))
    if print_limit:
        typer.echo(memory.text(place.models / CURRENT), nl=False)
        return
    switch = Switch(
        models=place.models,
        service=CommandService(restart_command) if restart_command else SystemdService(UNIT),
        endpoint=endpoint_of(settings),
        timeout_s=timeout,
        memory=None if restart_command else memory,
        tell=tell,
    )
    old = switch.current()
    with _signals_interrupt():
        new = _update(ref, place, switch)
    document = {"served": str(new), "before": str(old), "changed": new.resolve() != old.resolve()}
    typer.echo(json_module.dumps(document, indent=2) if json else new)


def _update(ref: str | None, place: Place, switch: Switch) -> Path:
    """The file that is served now. ref: None, the one before."""
    from edge.deploy.placing import fetch, try_out
    from edge.deploy.update import PREVIOUS, read_link

    old = switch.current()
    new = fetch(ref, place, tell) if ref else read_link(place.models / PREVIOUS)
    if new.resolve() == old.resolve():
        tell(f"{new.name} is served already; nothing was changed")
        return new
    try_out(new, place, tell)
    switch.to(new)
    tell(f"{new.name} is served; {old.name} stays, and --back returns to it")
    return new


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
