"""Trains the LoRA adapter of the demonstration model.

    python -m demo.train --base CHECKPOINT --examples examples.jsonl --out DIR [--minutes 90] [--processes 2]

Loss on the assistant's text only. On a CPU, one process a core with one thread each is faster than one process with
many; gradients are summed between them. The learning rate falls with the share of the examples or of the time that is
used, whichever is larger, so that a run with a time limit ends as it should. A run that was cut off goes on from its
last checkpoint when it is started again with the same --out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AttentionInterface, AutoModelForCausalLM

from demo.attention import attend
from demo.packs import Pack, read_packs

_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_CHECKPOINT_EVERY_S = 300.0
_VALIDATE_EVERY = 60
_N_VALIDATION = 16
_WINDOW = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """A run. text_weight: of a token of plain text, against 1 for a token of a call.

    continues: a run whose weights, optimizer and place in the schedule this one takes over, on other examples.
    first_layer: the layers below it stay as they are, which saves their part of the backward pass.
    """

    base: str
    examples: str
    out: str
    minutes: float
    processes: int
    packs_a_step: int = 4
    learning_rate: float = 1.2e-3
    warmup_steps: int = 25
    rank: int = 20
    alpha: int = 40
    first_layer: int = 6
    max_tokens: int = 1500
    text_weight: float = 0.5
    continues: str = ""
    seed: int = 7


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", required=True)
    parser.add_argument("--examples", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument(
        "--continues", default="", metavar="RUN", help="take over from this run, on other examples"
    )
    parser.add_argument("--minutes", type=float, default=24 * 60.0)
    parser.add_argument("--processes", type=int, default=0, help="default: one a core, one on an accelerator")
    parser.add_argument("--packs-a-step", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    args = vars(parser.parse_args())
    args["processes"] = args["processes"] or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    settings = Settings(**args)
    Path(settings.out).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    torch.multiprocessing.spawn(_worker, args=(settings,), nprocs=settings.processes)
    return 0


def _worker(rank: int, settings: Settings) -> None:
    torch.manual_seed(settings.seed)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=settings.processes)
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // settings.processes))
    _Run(rank, settings).train()
    torch.distributed.destroy_process_group()


class _Run:
    """One process of a training run."""

    def __init__(self, rank: int, settings: Settings) -> None:
        self._rank, self._settings = rank, settings
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = Tokenizer.from_file(str(Path(settings.base) / "tokenizer.json"))
        packs = list(read_packs(Path(settings.examples), tokenizer, max_tokens=settings.max_tokens))
        self._validation = packs[:_N_VALIDATION]
        self._packs = _evened(packs[_N_VALIDATION:], settings)
        self._newline_call = tuple(tokenizer.encode("<tool_call>", add_special_tokens=False).ids)
        self._model = _model(settings).to(self._device)
        self._trained = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self._step, self._elapsed_s, self._n_tokens = 0, 0.0, 0
        self._first_step = 0  # of these examples
        self._load()

    def train(self) -> None:
        n_steps = self._first_step + len(self._packs) // self._settings.packs_a_step
        started = time.monotonic() - self._elapsed_s
        saved_at = time.monotonic()
        while self._step < n_steps:
            progress = self._agreed(
                max(self._step / n_steps, (time.monotonic() - started) / 60 / self._settings.minutes)
            )
            if progress >= 1:
                break
            loss = self._one_step(progress)
            self._step += 1
            self._elapsed_s = time.monotonic() - started
            record: dict[str, Any] = {"step": self._step, "of": n_steps, "loss": round(loss, 4), "tokens": self._n_tokens,
                                      "seconds": round(self._elapsed_s, 1), "learning_rate": self._rate(progress)}  # fmt: skip
            if self._step % _VALIDATE_EVERY == 0:
                record["validation_loss"] = round(self._validate(), 4)
            self._log(record)
            if self._rank == 0 and time.monotonic() - saved_at > _CHECKPOINT_EVERY_S:
                self._save()
                saved_at = time.monotonic()
        final = self._validate()
        if self._rank == 0:
            self._log(
                {
                    "step": self._step,
                    "of": n_steps,
                    "validation_loss": round(final, 4),
                    "seconds": round(self._elapsed_s, 1),
                    "tokens": self._n_tokens,
                }
            )
            self._save()
            self._export()

    def _one_step(self, progress: float) -> float:
        start = (self._step - self._first_step) * self._settings.packs_a_step
        chosen = self._packs[start : start + self._settings.packs_a_step]
        self._n_tokens += sum(pack.n_tokens for pack in chosen)
        total = torch.tensor([0.0, 0.0])
        for pack in _share(chosen, self._rank, self._settings.processes):
            loss, weight = self._loss(pack)
            loss.backward()
            total += torch.tensor([loss.item(), weight])
        gradient = torch.cat(
            [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten().cpu() for p in self._trained]
        )
        torch.distributed.all_reduce(gradient)
        torch.distributed.all_reduce(total)
        self._apply(gradient / total[1], progress)
        return float(total[0] / total[1])

    def _apply(self, gradient: torch.Tensor, progress: float) -> None:
        offset = 0
        for parameter in self._trained:
            n = parameter.numel()
            parameter.grad = gradient[offset : offset + n].view_as(parameter).to(parameter.device)
            offset += n
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(progress)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _rate(self, progress: float) -> float:
        warm = min(1.0, (self._step + 1) / self._settings.warmup_steps)
        return (
            self._settings.learning_rate
            * warm
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
        )

    def _loss(self, pack: Pack) -> tuple[torch.Tensor, float]:
        """Summed weighted cross entropy of the targets, and the weights' sum."""
        ids, positions, ranges = _laid_out(pack)
        predicts, weights = self._targets(pack)
        tokens = torch.tensor(ids, device=self._device)
        kept = torch.tensor(predicts, device=self._device)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._device.type == "cuda"):
            logits = self._model(
                input_ids=tokens[None], position_ids=torch.tensor(positions, device=self._device)[None],
                logits_to_keep=kept, use_cache=False, n_prefix=len(pack.prefix), branches=ranges,
            ).logits[0]  # fmt: skip
        losses = torch.nn.functional.cross_entropy(logits.float(), tokens[kept + 1], reduction="none")
        weight = torch.tensor(weights, device=self._device)
        return (losses * weight).sum(), float(weight.sum())

    def _targets(self, pack: Pack) -> tuple[list[int], list[float]]:
        """Positions whose next token is a target, and that target's weight."""
        predicts: list[int] = []
        weights: list[float] = []
        offset = len(pack.prefix)
        for branch in pack.branches:
            in_call, since = False, 0
            for i, (id_, is_target) in enumerate(zip(branch.ids, branch.is_target, strict=True)):
                since = since + 1 if is_target else 0
                if since == 1:
                    in_call = branch.ids[i : i + len(self._newline_call)] == self._newline_call
                if is_target:
                    predicts.append(offset + i - 1)
                    weights.append(1.0 if in_call or since <= 3 else self._settings.text_weight)
                del id_
            offset += len(branch.ids)
        return predicts, weights

    @torch.no_grad()
    def _validate(self) -> float:
        total = torch.tensor([0.0, 0.0])
        for pack in _share(self._validation, self._rank, self._settings.processes):
            loss, weight = self._loss(pack)
            total += torch.tensor([loss.item(), weight])
        torch.distributed.all_reduce(total)
        return float(total[0] / total[1])

    def _agreed(self, progress: float) -> float:
        value = torch.tensor([progress])
        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
        return float(value[0])

    def _log(self, record: dict[str, Any]) -> None:
        if self._rank == 0:
            with (Path(self._settings.out) / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")

    def _save(self) -> None:
        target = Path(self._settings.out) / "checkpoint.pt"
        state = {
            "trained": [p.detach().cpu() for p in self._trained], "optimizer": self._optimizer.state_dict(),
            "step": self._step, "first_step": self._first_step, "elapsed_s": self._elapsed_s, "n_tokens": self._n_tokens, "settings": asdict(self._settings),
        }  # fmt: skip
        torch.save(state, target.with_suffix(".part"))
        target.with_suffix(".part").replace(target)

    def _load(self) -> None:
        source = Path(self._settings.out) / "checkpoint.pt"
        is_own = source.exists()
        if not is_own and not self._settings.continues:
            return
        source = source if is_own else Path(self._settings.continues) / "checkpoint.pt"
        state = torch.load(source, weights_only=True)
        with torch.no_grad():
            for parameter, saved in zip(self._trained, state["trained"], strict=True):
                parameter.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._step, self._elapsed_s, self._n_tokens = state["step"], state["elapsed_s"], state["n_tokens"]
        self._first_step = state.get("first_step", 0) if is_own else self._step

    def _export(self) -> None:
        self._model.to(torch.bfloat16).save_pretrained(Path(self._settings.out) / "adapter")


def _model(settings: Settings) -> Any:
    AttentionInterface.register("pack", _attention)
    model = AutoModelForCausalLM.from_pretrained(
        settings.base, attn_implementation="pack", dtype=torch.float32
    )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=_MODULES,
        task_type="CAUSAL_LM",
        layers_to_transform=list(range(settings.first_layer, model.config.num_hidden_layers)),
    )
    return get_peft_model(model, config)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """The form in which transformers calls an attention; batch size is one pack."""
    return attend(query[0], key[0], value[0], given["n_prefix"], given["branches"])[None], None


def _evened(packs: Sequence[Pack], settings: Settings) -> list[Pack]:
    """The packs in an order in which each step's packs can be shared out evenly: neighbours in length go together.

    Otherwise the processes wait for whoever got the longest pack, a quarter of the time.
    """
    rng = random.Random(settings.seed)
    evened: list[Pack] = []
    n = settings.processes
    for start in range(0, len(packs), _WINDOW):
        window = sorted(packs[start : start + _WINDOW], key=lambda pack: pack.n_tokens)
        rows = [window[i : i + n] for i in range(0, len(window), n)]
        rng.shuffle(rows)
        evened += [pack for row in rows for pack in row]
    return evened


def _share(packs: Sequence[Pack], rank: int, processes: int) -> list[Pack]:
    """This process's part: longest first, each to the process with least so far."""
    loads = [0] * processes
    mine = []
    for pack in sorted(packs, key=lambda pack: -pack.n_tokens):
        least = loads.index(min(loads))
        loads[least] += pack.n_tokens
        if least == rank:
            mine.append(pack)
    return mine


def _laid_out(pack: Pack) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Ids, positions and the range of each branch."""
    ids = list(pack.prefix)
    positions = list(range(len(ids)))
    ranges = []
    for branch in pack.branches:
        ranges.append((len(ids), len(ids) + len(branch.ids)))
        positions += range(len(pack.prefix), len(pack.prefix) + len(branch.ids))
        ids += branch.ids
    return ids, positions, ranges


if __name__ == "__main__":
    sys.exit(main())
