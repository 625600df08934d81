"""Writes training examples, one group of dialogues a line, and prints how many there are of each scenario.

    python -m demo.compose --out examples.jsonl [--examples 9500] [--seed 7] [--without GLOB]... [shares, see --help]

The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from demo.composer import Composer
from demo.held_out import HeldOut
from demo.reading import read_material
from demo.slots import MaterialError


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        _check(args)
        material = read_material(without=args.without)
        composer = Composer(
            material,
            args.seed,
            HeldOut.read(),
            settings_share=args.settings_share,
            dated_share=args.dated_share,
            varies_order=args.vary_order,
            easy_share=args.easy_share,
            answered_share=args.answered_share,
            finished_share=args.finished_share,
        )
        counts = write_examples(composer, args.examples, args.out)
    except (MaterialError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    for name, number in sorted(counts.items()):
        print(f"{name:>24} {number:>6}")
    for name, number in composer.dropped.most_common():
        print(f"dropped, {name}: {number}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if not args.out.parent.is_dir():
        raise MaterialError(f"there is no folder {args.out.parent} to write into")
    if args.out.is_dir():
        raise MaterialError(f"{args.out} is a folder; --out names the file to write")
    if args.examples < 1:
        raise MaterialError(f"--examples is {args.examples}; at least 1 is needed")
    for name in ("settings_share", "dated_share", "easy_share", "answered_share", "finished_share"):
        if not 0 <= getattr(args, name) <= 1:
            raise MaterialError(
                f"--{name.replace('_', '-')} is {getattr(args, name)}; a share lies between 0 and 1"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.compose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=9500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--without",
        metavar="GLOB",
        action="append",
        default=[],
        help="leave these files of material out, e.g. 'settings_*'; may be given several times",
    )
    parser.add_argument(
        "--settings-share", type=float, default=0.5, help="of the groups that are deployments"
    )
    parser.add_argument(
        "--dated-share", type=float, default=0.0, help="of the groups that ask for days under a stated date"
    )
    parser.add_argument(
        "--easy-share", type=float, default=1.0, help="of the dialogues with one call or parallel ones alone"
    )
    parser.add_argument(
        "--answered-share",
        type=float,
        default=1.0,
        help="of those, how many go on to the result and the answer",
    )
    parser.add_argument(
        "--finished-share",
        type=float,
        default=1.0,
        help="of the others, how many go on behind their last call",
    )
    parser.add_argument(
        "--vary-order", action="store_true", help="parameters in any order, and among ones that nobody uses"
    )
    return parser


def write_examples(composer: Composer, n_examples: int, out: Path) -> Counter[str]:
    """The number of dialogues of each scenario. The file appears when it is complete."""
    counts = Counter[str]()
    part = out.with_name(out.name + ".part")
    with part.open("w", encoding="utf-8") as lines:
        for group in composer.groups(n_examples):
            counts.update(dialog["scenario"] for dialog in group.dialogs)
            lines.write(group.to_json() + "\n")
    part.replace(out)
    return counts


if __name__ == "__main__":
    sys.exit(main())
