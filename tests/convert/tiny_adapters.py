"""PEFT adapters for the tiny checkpoints, as peft saves them, written with numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.convert.tiny_checkpoints import Tiny, save, stored, tensor_shapes

_PREFIX = "base_model.model."


def lora_modules(tiny: Tiny) -> dict[str, tuple[int, int]]:
    """Every Linear module of the checkpoint with its (out, in) shape."""
    shapes = tensor_shapes(tiny.text, tiny.prefix)
    return {
        name.removesuffix(".weight"): shape
        for name, shape in shapes.items()
        if len(shape) == 2 and not name.endswith(("embed_tokens.weight", "lm_head.weight"))
    }


def write_adapter(
    folder: Path,
    modules: Mapping[str, tuple[int, int]],
    *,
    seed: int = 7,
    r: int = 4,
    ranks: Mapping[str, int] | None = None,
    saved: Mapping[str, np.ndarray] | None = None,
    embeddings: Mapping[str, tuple[int, int]] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
    **settings,
) -> Path:
    """An adapter of rank r (or `ranks` by module) on `modules`; saved: modules_to_save; settings: its configuration."""
    random = np.random.RandomState(seed)
    tensors: dict[str, np.ndarray] = {}
    for name, (out, into) in modules.items():
        rank = (ranks or {}).get(name, r)
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = random.normal(0, into**-0.5, (rank, into))
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = random.normal(0, 0.3, (out, rank))
    for name, (n_vocab, n_embd) in (embeddings or {}).items():
        tensors[f"{_PREFIX}{name}.lora_embedding_A"] = random.normal(0, 0.3, (r, n_vocab))
        tensors[f"{_PREFIX}{name}.lora_embedding_B"] = random.normal(0, 0.1, (n_embd, r))
    tensors.update({f"{_PREFIX}{name}.weight": values for name, values in (saved or {}).items()})
    tensors.update(extra or {})
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "adapter_model.safetensors", stored(_as_float32(tensors), "F32"))
    targets = sorted({name.rpartition(".")[2] for name in (*modules, *(embeddings or {}))})
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "someone/base-model",
        "r": r,
        "lora_alpha": 8,
        "target_modules": targets,
        "modules_to_save": sorted(name.rpartition(".")[2] for name in saved) if saved else None,
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "fan_in_fan_out": False,
        "task_type": "CAUSAL_LM",
        **settings,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _as_float32(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values.astype(np.float32) for name, values in tensors.items()}
