"""Trains the LoRA adapter of the demonstration model.

    python -m demo.train --base CHECKPOINT --examples examples.jsonl --out DIR [--minutes 90] [--processes 2]
        [--continues RUN] [--validation unseen.jsonl]

Loss on the assistant's text only. On a CPU, one process a core with one thread each is faster than one process with
many; gradients are summed between them. The learning rate falls with the share of the examples or of the time that is
used, whichever is larger, so that a run with a time limit ends as it should. A run that was cut off goes on from its
last checkpoint when it is started again with the same --out.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing

from demo.settings import Settings, TrainError
from demo.start import ADAPTER, CHECKPOINT
from demo.trainer import Trainer

_KEEPS_MEMORY = "glibc.malloc.trim_threshold=4294967296:glibc.malloc.mmap_threshold=33554432"


def main(argv: list[str] | None = None) -> int:
    args = vars(_parser().parse_args(argv))
    args["processes"] = args["processes"] or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    settings = Settings(**args)
    try:
        _check(settings)
        train(settings)
    except (TrainError, OSError, torch.multiprocessing.ProcessRaisedException) as exc:
        print(f"error: {_last_line(exc)}", file=sys.stderr)
        return 1
    return 0


def train(settings: Settings) -> None:
    """Writes log.jsonl, checkpoint.pt and adapter/ below `settings.out`."""
    Path(settings.out).mkdir(parents=True, exist_ok=True)
    # What a pack used the next one uses again: given back in between, a quarter of the time is the kernel's.
    os.environ.setdefault("GLIBC_TUNABLES", _KEEPS_MEMORY)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(_free_port())
    torch.multiprocessing.spawn(_work, args=(settings,), nprocs=settings.processes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", required=True, help="folder of the checkpoint to train on")
    parser.add_argument("--examples", required=True, help="what demo.compose wrote")
    parser.add_argument("--out", required=True, help="folder of the run")
    parser.add_argument(
        "--continues", default="", metavar="RUN", help="take over from this run or adapter, on other examples"
    )
    parser.add_argument(
        "--validation",
        default="",
        metavar="EXAMPLES",
        help="measure the loss on these, composed of material that is not trained on; else on the first of --examples",
    )
    parser.add_argument("--minutes", type=float, default=24 * 60.0)
    parser.add_argument("--processes", type=int, default=0, help="default: one a core, one on an accelerator")
    # Without these, the run has what Settings says.
    parser.add_argument("--packs-a-step", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--learning-rate", type=float, default=argparse.SUPPRESS)
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=argparse.SUPPRESS,
        help="of a pack; dialogues that would make it longer are left out",
    )
    parser.add_argument(
        "--text-weight",
        type=float,
        default=argparse.SUPPRESS,
        help="of a token of plain text, against 1 for one of a call",
    )
    return parser


def _check(settings: Settings) -> None:
    needed = [Path(settings.base) / "config.json", Path(settings.examples)]
    if settings.validation:
        needed.append(Path(settings.validation))
    for path in needed:
        if not path.is_file():
            raise TrainError(f"{path} is not there; README.md says how it is made")
    before = Path(settings.continues)
    if settings.continues and not any((before / name).is_file() for name in (CHECKPOINT, ADAPTER)):
        raise TrainError(
            f"{before} holds neither {CHECKPOINT} nor {ADAPTER}; --continues takes a run or an adapter"
        )
    for name in ("minutes", "processes", "packs_a_step", "learning_rate", "max_tokens", "text_weight"):
        if getattr(settings, name) <= 0:
            raise TrainError(f"--{name.replace('_', '-')} must be above 0, got {getattr(settings, name)}")


def _work(rank: int, settings: Settings) -> None:
    torch.manual_seed(settings.seed)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=settings.processes)
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // settings.processes))
    Trainer(rank, settings).train()
    torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_line(exc: Exception) -> str:
    # A process's error comes as its whole traceback in text.
    return str(exc).strip().splitlines()[-1].removeprefix(f"{TrainError.__module__}.{TrainError.__name__}: ")


if __name__ == "__main__":
    sys.exit(main())
