"""The mean of several adapters' weights, as an adapter.

    python -m demo.average ADAPTER ADAPTER... --out DIR

For states of one training, of which the later have learned something and lost something: their mean often keeps
both. They must have the same form (rank, layers, modules).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from demo.settings import TrainError
from demo.start import ADAPTER, ADAPTER_CONFIG, read_adapter

_OF_THE_FORM = ("r", "lora_alpha", "base_model_name_or_path")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("adapters", type=Path, metavar="ADAPTER", nargs="+", help="two or more")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        if args.out.exists() and not args.out.is_dir():
            raise TrainError(f"{args.out} is a file; --out names a folder, which may be new")
        average(args.adapters, args.out)
    except (TrainError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


def average(adapters: Sequence[Path], out: Path) -> None:
    """Folders. Raises TrainError where there are less than two, one holds no adapter or they are of different forms;
    then nothing is written."""
    if len(adapters) < 2:
        raise TrainError(f"only {adapters[0]} is named; a mean takes at least two adapters")
    (config, tensors), *others = map(read_adapter, adapters)
    for folder, (other_config, other) in zip(adapters[1:], others, strict=True):
        if _form(other_config, other) != _form(config, tensors):
            raise TrainError(
                f"{adapters[0]} and {folder} are adapters of different forms; only one training's can be averaged"
            )
    mean = {
        name: torch.stack([tensor.float(), *(other[name].float() for _, other in others)])
        .mean(dim=0)
        .to(tensor.dtype)
        for name, tensor in tensors.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{ADAPTER}.part"  # `out` may be one of the adapters: it stays until the mean is complete
    save_file(mean, part, metadata={"format": "pt"})
    part.replace(out / ADAPTER)
    (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _form(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> object:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return {name: config.get(name) for name in _OF_THE_FORM}, shapes


if __name__ == "__main__":
    sys.exit(main())
