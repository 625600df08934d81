"""What a training run goes on from: its own checkpoint, that of another run, or an adapter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from demo.settings import Settings, TrainError

CHECKPOINT = "checkpoint.pt"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
# What may differ when a run goes on: where things are and for how long.
_FREE_TO_CHANGE = {"base", "examples", "out", "minutes", "continues"}
# What decides the form of the adapter, and so which weights fit.
_OF_THE_ADAPTER = {"rank", "alpha", "first_layer"}
_TAKES_SAME = "--continues takes only what has the same"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run stands. trained: the adapter's tensors, in the model's order. optimizer: None where only weights are
    known. first_step, elapsed_before_s: of the run that this one continues. elapsed_s: over all of them."""

    trained: list[torch.Tensor]
    optimizer: dict[str, Any] | None = None
    step: int = 0
    first_step: int = 0
    elapsed_s: float = 0.0
    elapsed_before_s: float = 0.0
    n_tokens: int = 0


def write_start(start: Start, settings: Settings) -> None:
    """Writes the checkpoint into `settings.out`; the one before stays until it is complete."""
    state = {field.name: getattr(start, field.name) for field in fields(start)}
    state |= {"settings": asdict(settings), "examples_sha256": _sha256(Path(settings.examples))}
    path = Path(settings.out) / CHECKPOINT
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def read_start(settings: Settings, names: Sequence[str]) -> Start | None:
    """names: of the trained parameters, as peft calls them. None where nothing came before. Raises TrainError where
    what came before does not fit."""
    own = Path(settings.out) / CHECKPOINT
    if own.exists():
        return _of_checkpoint(own, settings, is_own=True)
    if not settings.continues:
        return None
    folder = Path(settings.continues)
    if (folder / CHECKPOINT).exists():
        return _of_checkpoint(folder / CHECKPOINT, settings, is_own=False)
    return Start(_of_adapter(folder, settings, names))


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Its config and its weights by name. Raises TrainError where it holds none."""
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{ADAPTER_CONFIG} holds a {type(config).__name__}, not an object")
        return config, load_file(folder / ADAPTER)
    except (OSError, ValueError, SafetensorError) as exc:
        raise TrainError(
            f"{folder} holds no adapter of this model that can be read: {exc}; name the adapter/ of a run"
        ) from None


def _of_checkpoint(path: Path, settings: Settings, *, is_own: bool) -> Start:
    """is_own: the run itself goes on, so that nothing may have changed; else only the adapter must fit."""
    state = torch.load(path, weights_only=True)
    before = state["settings"]
    if is_own:
        _check_same(path, before, settings, before.keys() - _FREE_TO_CHANGE, "use the same or another --out")
        if state["examples_sha256"] != _sha256(Path(settings.examples)):
            raise TrainError(
                f"{path} is of a run on other examples than {settings.examples}; use another --out"
            )
    else:
        _check_same(path, before, settings, _OF_THE_ADAPTER, _TAKES_SAME)
        state |= {"first_step": state["step"], "elapsed_before_s": state["elapsed_s"]}
    return Start(**{field.name: state[field.name] for field in fields(Start)})


def _of_adapter(folder: Path, settings: Settings, names: Sequence[str]) -> list[torch.Tensor]:
    config, tensors = read_adapter(folder)
    try:
        before = {
            "rank": config["r"],
            "alpha": config["lora_alpha"],
            "first_layer": min(config["layers_to_transform"]),
        }
        _check_same(folder / ADAPTER, before, settings, _OF_THE_ADAPTER, _TAKES_SAME)
        return [tensors[name.replace(".default.", ".")] for name in names]
    except (KeyError, TypeError, ValueError) as exc:
        raise TrainError(f"{folder} holds an adapter of another model: {exc!r}; {_TAKES_SAME}") from None


def _check_same(
    source: Path, before: Mapping[str, Any], settings: Settings, names: Set[str], advice: str
) -> None:
    for name in sorted(names):
        if before[name] != getattr(settings, name):
            raise TrainError(
                f"{source} is of a run with {name} {before[name]}, not {getattr(settings, name)}; {advice}"
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
