"""The mean of two adapters' weights, as an adapter.

    python -m demo.average ADAPTER ADAPTER --out DIR

For two states of one training, of which the later has learned something and lost something: their mean often keeps
both. They must have the same form (rank, layers, modules).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

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
    parser.add_argument("first", type=Path, metavar="ADAPTER")
    parser.add_argument("second", type=Path, metavar="ADAPTER")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        if args.out.exists() and not args.out.is_dir():
            raise TrainError(f"{args.out} is a file; --out names a folder, which may be new")
        average(args.first, args.second, args.out)
    except (TrainError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


def average(first: Path, second: Path, out: Path) -> None:
    """Folders. Raises TrainError where one holds no adapter or they are of different forms; then nothing is written."""
    (config, one), (other_config, other) = read_adapter(first), read_adapter(second)
    forms = [{name: c.get(name) for name in _OF_THE_FORM} for c in (config, other_config)]
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (one, other)]
    if forms[0] != forms[1] or shapes[0] != shapes[1]:
        raise TrainError(
            f"{first} and {second} are adapters of different forms; only one training's can be averaged"
        )
    mean = {
        name: ((tensor.float() + other[name].float()) / 2).to(tensor.dtype) for name, tensor in one.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(mean, out / ADAPTER, metadata={"format": "pt"})
    (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
