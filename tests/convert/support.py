"""Helpers of these tests: writing a float file from a plan, many files' logits at once, distances between logits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convert.checkpoint import open_checkpoint
from convert.gguf_write import TensorEntry, write_gguf
from convert.lora import open_adapter
from convert.model import ModelPlan, plan_model
from convert.tokenizer import read_vocabulary
from convert.weights import written_blocks
from tests.convert.make_golden import compared
from tests.convert.tiny_checkpoints import PROMPTS

_LOGITS_OF_MANY = """
import json, sys
from convert.native import NativeError, logits
for request in json.load(sys.stdin):
    try:
        logits(request, lambda value: None)
    except NativeError as error:
        print(error)
"""


def plan_of(folder: Path, adapters: tuple[Path, ...] = ()) -> ModelPlan:
    return plan_model(open_checkpoint(folder), [open_adapter(adapter) for adapter in adapters])


def write_plan(path: Path, folder: Path, plan: ModelPlan, kind: str = "F32", pre: str = "qwen2") -> Path:
    """The float file of a plan, however it was changed."""
    vocabulary = read_vocabulary(folder, plan.config.n_vocab, pre=pre)
    write_gguf(
        path,
        arch=plan.architecture.name,
        fields=[*plan.fields, *vocabulary.fields()],
        tensors=[TensorEntry(tensor.name, tensor.shape, tensor.stored_as(kind)) for tensor in plan.tensors],
        blocks=lambda i: written_blocks(
            plan.tensors[i], plan.source_of(plan.tensors[i]), plan.tensors[i].stored_as(kind)
        ),
    )
    return path


def llama_logits(
    files: Mapping[str, Path], folder: Path, prompts=PROMPTS
) -> dict[str, list[np.ndarray] | None]:
    """All logits of each file by llama.cpp in F32, from one child process; None for a file that does not load."""
    requests = [
        {
            "model": str(path),
            "prompts": prompts,
            "target": f"{folder}/{name}.npz",
            "n_threads": 1,
            "exact": True,
        }
        for name, path in files.items()
    ]
    subprocess.run(
        [sys.executable, "-c", _LOGITS_OF_MANY],
        input=json.dumps(requests).encode(),
        check=True,
        capture_output=True,
        timeout=120,
    )
    found: dict[str, list[np.ndarray] | None] = {}
    for name in files:
        path = folder / f"{name}.npz"
        found[name] = _arrays(path) if path.exists() else None
    return found


def _arrays(path: Path) -> list[np.ndarray]:
    with np.load(path) as stored:
        return [stored[str(i)] for i in range(len(stored.files))]


def kl_divergence(reference: np.ndarray, candidate: np.ndarray) -> float:
    """The largest KL(reference || candidate) of the rows, in nats."""
    p, q = _log_softmax(reference), _log_softmax(candidate)
    return float((np.exp(p) * (p - q)).sum(axis=-1).max())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


__all__ = ["compared", "kl_divergence", "llama_logits", "plan_of", "write_plan"]
