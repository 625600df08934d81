"""`bundle`: one archive with which a board gets everything without a network."""

from __future__ import annotations

import json as json_module
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import JsonOption
from edge.cli.plan import THIS_MACHINE, detect, known_models, profile_of, translated_errors
from edge.cli.progress import fetch_view, tell, warn
from edge.errors import RequestError

if TYPE_CHECKING:
    from edge.deploy.wheelhouse import Board
    from profiles.device import Device
    from profiles.device_profile import DeviceProfile

THIS = "this"


def bundle_command(
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A device profile, e.g. jetson-orin-nano-8gb; this: like this machine."
        ),
    ] = THIS,
    model: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Default: what the profile picks; none: without a model."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the .tar is written.")] = Path(),
    python: Annotated[
        str, typer.Option(metavar="X.Y", help="The board's Python.")
    ] = f"{sys.version_info.major}.{sys.version_info.minor}",
    wheels: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Holds a wheel of llama-cpp-python compiled for the board."),
    ] = None,
    available_mib: Annotated[
        int | None,
        typer.Option(metavar="MIB", min=256, help="Memory free on the board, if not the profile's."),
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only check that a bundle is whole.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make one archive that installs on a board without a network.

    Example: smoltools-edge bundle --target jetson-orin-nano-8gb --model smol-tools-4b-q4_k_m.gguf
    """
    from edge.deploy.bundle import BundleRequest, make_bundle, verify_bundle

    if verify is not None:
        n_files = verify_bundle(verify)
        typer.echo(
            json_module.dumps({"path": str(verify), "files": n_files})
            if json
            else f"{n_files} files are whole"
        )
        return
    with translated_errors():
        device, profile = _target(target, available_mib)
    board = _board(profile, python, is_this=target == THIS)  # before a model is fetched
    request = BundleRequest(
        target=profile.name,
        board=board,
        model=None if model == "none" else _model_file(model, device, profile),
        out=out,
        compiled=wheels,
    )
    made = make_bundle(request, tell)
    for sentence in made.missing:
        tell(f"not included: {sentence}")
    document = {
        "path": str(made.path),
        "size_bytes": made.size_bytes,
        "target": profile.name,
        "missing": made.missing,
    }
    typer.echo(json_module.dumps(document, indent=2) if json else made.path)


def _target(name: str, available_mib: int | None) -> tuple[Device, DeviceProfile]:
    from profiles.target import target_device

    if name != THIS:
        return target_device(name, available_mib)
    device = detect(THIS_MACHINE)
    return device, profile_of(device, None)[0]


def _board(profile: DeviceProfile, python: str, *, is_this: bool) -> Board:
    from edge.deploy.wheelhouse import Board, this_glibc

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    major, _, minor = python.partition(".")
    if major != "3" or not minor.isdecimal() or int(minor) < 11:
        raise RequestError(f"--python is {python!r}; allowed are 3.11 and newer, as 3.12")
    if is_this or profile.target is None:
        if python != here:
            raise RequestError(f"--python {python} needs a --target; for a machine like this it is {here}")
        return Board(platform.machine(), this_glibc(), here, is_this=True)
    return Board(profile.target.machine, profile.target.glibc, python, cuda=profile.target.cuda)


def _model_file(ref: str | None, device: Device, profile: DeviceProfile) -> Path:
    """The file for REF, or for what the profile picks for such a device."""
    from edge.models.listing import odd_about
    from edge.models.store import resolve
    from profiles.choice import choose
    from profiles.plan import Pins

    if ref is None:
        with translated_errors():
            chosen = choose(device, profile, known_models(profile), Pins()).chosen
        ref = f"{chosen.model}:{chosen.quantization}"
        tell(f"the profile {profile.name} picks {ref}")
    with fetch_view() as view:
        resolved = resolve(ref, view.tell, on_bytes=view.on_bytes)
    warn(resolved.path, odd_about(resolved))
    return resolved.path
