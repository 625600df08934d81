"""One process of a training run: its steps, its log and its checkpoints.

Every process holds the whole model and all packs; of each step's packs it computes its share, and the gradients are
summed. A run that is started again in the same folder goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AttentionInterface, AutoModelForCausalLM

from demo.loss import pack_loss, packed_attention, targets
from demo.packs import Pack, read_packs
from demo.settings import Settings, TrainError
from demo.start import Start, read_start, write_start

# Named as the hub names it, so that an adapter's config holds no folder of whoever trained it.
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_CHECKPOINT_EVERY_S = 300.0
_VALIDATE_EVERY = 60  # steps
_N_VALIDATION = 16  # packs
_WINDOW = 64  # packs that are ordered among themselves


class Trainer:
    """rank: the number of this process. Raises TrainError where the examples are too few, or what the run
    is to go on from does not fit."""

    def __init__(self, rank: int, settings: Settings) -> None:
        self._rank, self._settings = rank, settings
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._out = Path(settings.out)
        tokenizer = Tokenizer.from_file(str(Path(settings.base) / "tokenizer.json"))
        packs = _read(settings.examples, tokenizer, settings)
        if settings.validation:
            self._validation = _read(settings.validation, tokenizer, settings)[:_N_VALIDATION]
        else:
            self._validation, packs = packs[:_N_VALIDATION], packs[_N_VALIDATION:]
        self._packs = evened(packs, settings)
        self._call_ids = tokenizer.encode("<tool_call>", add_special_tokens=False).ids
        self._model = adapted_model(settings).to(self._device)
        self._trained = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self._step, self._elapsed_s, self._n_tokens = 0, 0.0, 0
        self._first_step, self._elapsed_before_s = 0, 0.0  # of the run that this one continues
        self._load()
        self._started_s = time.monotonic() - self._elapsed_s
        self._saved_s = time.monotonic()

    @property
    def n_steps(self) -> int:
        """Steps of a run that its time does not cut short: every example once, after those of the run before."""
        return self._first_step + len(self._packs) // self._settings.packs_a_step

    def train(self) -> None:
        """To the end of the examples or of the time; then writes `out`/adapter."""
        while self._step < self.n_steps:
            progress = self._agreed_progress()
            if progress >= 1:
                break
            self.advance(progress)
            if time.monotonic() - self._saved_s > _CHECKPOINT_EVERY_S:
                self.save()
        self._log({**self._state(), "validation_loss": self._validate()})
        self.save()
        self._export()

    def advance(self, progress: float) -> None:
        """One step. progress: share of the run that is over, 0 to 1."""
        rate = self._rate(progress)
        loss = self._update(rate)
        self._step += 1
        self._elapsed_s = time.monotonic() - self._started_s
        record = {**self._state(), "loss": round(loss, 4), "learning_rate": rate}
        if self._step % _VALIDATE_EVERY == 0:
            record["validation_loss"] = self._validate()
        self._log(record)

    def save(self) -> None:
        """Writes the checkpoint from which the run can go on."""
        if self._rank == 0:
            start = Start(
                trained=[p.detach().cpu() for p in self._trained],
                optimizer=self._optimizer.state_dict(),
                step=self._step,
                first_step=self._first_step,
                elapsed_s=self._elapsed_s,
                elapsed_before_s=self._elapsed_before_s,
                n_tokens=self._n_tokens,
            )
            write_start(start, self._settings)
            self._saved_s = time.monotonic()

    def _load(self) -> None:
        names = [name for name, p in self._model.named_parameters() if p.requires_grad]
        start = read_start(self._settings, names)
        if start is None:
            return
        with torch.no_grad():
            for parameter, saved in zip(self._trained, start.trained, strict=True):
                parameter.copy_(saved)
        if start.optimizer is not None:
            self._optimizer.load_state_dict(start.optimizer)
        self._step, self._elapsed_s, self._n_tokens = start.step, start.elapsed_s, start.n_tokens
        self._first_step, self._elapsed_before_s = start.first_step, start.elapsed_before_s

    def _update(self, rate: float) -> float:
        """One step's loss a weighted token; the gradients of all processes move the weights of each."""
        start = (self._step - self._first_step) * self._settings.packs_a_step
        packs = self._packs[start : start + self._settings.packs_a_step]
        self._n_tokens += sum(pack.n_tokens for pack in packs)
        loss, weight = self._summed(packs, learns=True)
        gradient = torch.cat([_gradient(parameter) for parameter in self._trained])
        torch.distributed.all_reduce(gradient)
        self._apply(gradient / weight, rate)
        return loss / weight

    def _summed(self, packs: Sequence[Pack], *, learns: bool) -> tuple[float, float]:
        """Loss and weight of these packs, over all processes."""
        total = torch.zeros(2)
        for pack in share(packs, self._rank, self._settings.processes):
            learned = targets(pack, self._call_ids, self._settings.text_weight)
            with torch.set_grad_enabled(learns):
                loss, weight = pack_loss(self._model, pack, learned, self._device)
            if learns:
                loss.backward()
            total += torch.tensor([loss.item(), weight])
        torch.distributed.all_reduce(total)
        return float(total[0]), float(total[1])

    def _apply(self, gradient: torch.Tensor, rate: float) -> None:
        offset = 0
        for parameter in self._trained:
            n = parameter.numel()
            parameter.grad = gradient[offset : offset + n].view_as(parameter).to(parameter.device)
            offset += n
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _rate(self, progress: float) -> float:
        """Learning rate: linear warm-up, then half a cosine down to a fiftieth."""
        warm = min(1.0, (self._step - self._first_step + 1) / self._settings.warmup_steps)
        falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self._settings.learning_rate * warm * falling

    def _agreed_progress(self) -> float:
        """Share of the examples or of the time, whichever is larger, in whichever process is furthest: all must stop
        at the same step."""
        share_of_time = (
            (time.monotonic() - self._started_s - self._elapsed_before_s) / 60 / self._settings.minutes
        )
        share_of_steps = (self._step - self._first_step) / max(1, self.n_steps - self._first_step)
        progress = torch.tensor([max(share_of_steps, share_of_time)])
        torch.distributed.all_reduce(progress, op=torch.distributed.ReduceOp.MAX)
        return float(progress[0])

    def _validate(self) -> float:
        loss, weight = self._summed(self._validation, learns=False)
        return round(loss / weight, 4)

    def _state(self) -> dict[str, float]:
        return {
            "step": self._step,
            "of": self.n_steps,
            "tokens": self._n_tokens,
            "seconds": round(self._elapsed_s, 1),
        }

    def _log(self, record: dict[str, float]) -> None:
        if self._rank == 0:
            with (self._out / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")

    def _export(self) -> None:
        if self._rank == 0:
            self._model.peft_config["default"].base_model_name_or_path = BASE_NAME
            # Else peft asks the hub whether the vocabulary grew.
            self._model.to(torch.bfloat16).save_pretrained(self._out / "adapter", save_embedding_layers=False)


def adapted_model(settings: Settings) -> Any:  # noqa: ANN401 - peft is not typed
    """The base in float32 with a fresh adapter, computing packs."""
    AttentionInterface.register("packed", packed_attention)
    model = AutoModelForCausalLM.from_pretrained(
        settings.base, attn_implementation="packed", dtype=torch.float32
    )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=_MODULES,
        task_type="CAUSAL_LM",
        layers_to_transform=list(range(settings.first_layer, model.config.num_hidden_layers)),
    )
    return get_peft_model(model, config)


def _read(examples: str, tokenizer: Tokenizer, settings: Settings) -> list[Pack]:
    """Raises TrainError where there are not enough to validate on and to train on."""
    try:
        packs = list(read_packs(Path(examples), tokenizer, max_tokens=settings.max_tokens))
    except (ValueError, KeyError, TypeError) as exc:
        raise TrainError(f"{examples} is not what demo.compose writes: {exc!r}; compose it again") from None
    if len(packs) <= _N_VALIDATION:
        raise TrainError(
            f"{examples} has {len(packs)} groups that fit into {settings.max_tokens} tokens; more than"
            f" {_N_VALIDATION} are needed: compose more, or raise --max-tokens"
        )
    return packs


def evened(packs: Sequence[Pack], settings: Settings) -> list[Pack]:
    """The packs in an order in which each step's packs can be shared out evenly: neighbours in length go together.

    Otherwise the processes wait for whoever got the longest pack, a quarter of the time.
    """
    rng = random.Random(settings.seed)
    n = settings.processes
    ordered: list[Pack] = []
    for start in range(0, len(packs), _WINDOW):
        window = sorted(packs[start : start + _WINDOW], key=lambda pack: pack.n_tokens)
        rows = [window[i : i + n] for i in range(0, len(window), n)]
        rng.shuffle(rows)
        ordered += [pack for row in rows for pack in row]
    return ordered


def share(packs: Iterable[Pack], rank: int, processes: int) -> list[Pack]:
    """One process's part of a step: the longest packs first, each to the process with least so far."""
    loads = [0] * processes
    mine = []
    for pack in sorted(packs, key=lambda pack: -pack.n_tokens):
        least = loads.index(min(loads))
        loads[least] += pack.n_tokens
        if least == rank:
            mine.append(pack)
    return mine


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    # A process without a pack in this step has none.
    gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    return gradient.flatten().cpu()
