"""PEFT LoRA adapters: reading them, refusing what is not plain LoRA, and merging rows of a weight.

`W + scale * B @ A`, in float32, rows at a time, so that a merge costs no more memory than a copy.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.checkpoint import StoredTensor, one_line, read_json, read_safetensors_header
from convert.errors import AdapterError, CheckpointError
from convert.floats import Array, FloatType, to_float32

_WEIGHTS_NAME = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"^(?P<module>.+)\.(?P<factor>lora_(?:embedding_)?[AB])(?:\.default)?(?:\.weight)?$")

# Settings that do not change how saved factors are merged, whatever their value.
_HARMLESS = {
    *(
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
    ),
    *(
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "loftq_config",
    ),
    *(
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "r",
    ),
    *(
        "peft_version",
        "qalora_group_size",  # peft writes 16 always; it counts with use_qalora only, which is refused
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    ),
}
# Initialisations that change the base weights, so that the factors do not belong to the published base.
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True, slots=True)
class LowRank:
    """One LoRA pair: delta = scale * left @ right, shape of the weight.

    a, b: lora_A (r, in) and lora_B (out, r); for an embedding (r, n_vocab) and (n_embd, r), used transposed.
    """

    a: StoredTensor
    b: StoredTensor
    scale: float
    is_embedding: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.is_embedding else (out, into)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An opened adapter. Keys are checkpoint tensor names without PEFT's prefix, ending in `.weight`."""

    name: str
    sha256: str
    base_model: str | None
    pairs: Mapping[str, LowRank]
    replacements: Mapping[str, StoredTensor]
    ties_embeddings: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightSource:
    """A weight of the checkpoint or of modules_to_save, and the LoRA pairs to add to it, in order."""

    stored: StoredTensor
    pairs: tuple[LowRank, ...] = field(default=())

    @property
    def kind(self) -> FloatType:
        """The type of the rows that `row_reader` yields."""
        return "F32" if self.pairs else self.stored.kind

    @property
    def is_merged(self) -> bool:
        return bool(self.pairs)


def row_reader(source: WeightSource) -> Callable[[int, int], Array]:
    """A function (start, stop) -> those rows with all pairs merged, of type `source.kind`.

    The small factors are loaded once, here; the weight itself is read by the returned function.
    """
    if not source.pairs:
        return source.stored.read_rows
    factors = [_factors(pair) for pair in source.pairs]

    def read(start: int, stop: int) -> Array:
        rows = to_float32(source.stored.read_rows(start, stop), source.stored.kind)
        for left, right in factors:
            rows = rows + left[start:stop] @ right  # (rows, r) @ (r, columns)
        return rows

    return read


def _factors(pair: LowRank) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    a, b = _matrix(pair.a), _matrix(pair.b)
    left, right = (a.T, b.T) if pair.is_embedding else (b, a)
    return left * np.float32(pair.scale), right


def _matrix(tensor: StoredTensor) -> NDArray[np.float32]:
    return to_float32(tensor.read_rows(0, tensor.n_rows), tensor.kind)


def open_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`. Raises AdapterError for anything but plain LoRA, naming what was found."""
    weights = folder / _WEIGHTS_NAME
    try:
        config = read_json(folder / "adapter_config.json")
        if not weights.is_file():
            raise AdapterError(f"{folder} has no {_WEIGHTS_NAME}; pickled adapters are not read")
        tensors = read_safetensors_header(weights)
    except CheckpointError as error:
        raise AdapterError(f"{folder} is not a PEFT adapter: {error}") from error
    _check_config(folder, config)
    try:
        pairs, replacements = _sort_tensors(folder, config, tensors)
    except (TypeError, ValueError, ArithmeticError, AttributeError, re.error) as error:
        raise AdapterError(f"{folder}: its configuration makes no sense: {one_line(error)}") from error
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Adapter(
        name=folder.resolve().name,
        sha256=sha256,
        base_model=config.get("base_model_name_or_path"),
        pairs=pairs,
        replacements=replacements,
        ties_embeddings=bool(config.get("ensure_weight_tying")),
        # PEFT resets the flag for Linear modules, and every projection here is one.
        notes=(f"{folder.name}: fan_in_fan_out is ignored, all modules are Linear",)
        if config.get("fan_in_fan_out")
        else (),
    )


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{folder}: peft_type is {config.get('peft_type')!r}; only 'LORA' can be merged")
    if config.get("use_dora"):
        raise AdapterError(f"{folder}: DoRA (use_dora) cannot be merged here; merge it with peft first")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{folder}: bias is {config['bias']!r}; only 'none' can be merged")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_BASE_CHANGING_INITS):
        raise AdapterError(
            f"{folder}: init_lora_weights {init!r} changes the base weights; merge it with peft first"
        )
    for key, value in config.items():
        if value and key not in _HARMLESS and key not in ("bias", "megatron_config"):
            raise AdapterError(f"{folder}: {key} = {value!r} is not supported")


def _sort_tensors(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]
) -> tuple[dict[str, LowRank], dict[str, StoredTensor]]:
    factors: dict[str, dict[str, StoredTensor]] = {}
    replacements: dict[str, StoredTensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        if "lora_magnitude_vector" in name:
            raise AdapterError(f"{folder}: DoRA tensor {key} cannot be merged here; merge it with peft first")
        if match := _FACTOR.match(name):
            factors.setdefault(match["module"], {})[match["factor"]] = tensor
        elif ".lora_" in name or not key.startswith(_PREFIX):
            raise AdapterError(f"{folder}: tensor {key} is unknown to plain LoRA")
        else:
            replacements[_saved_module_name(name)] = tensor
    pairs = {f"{module}.weight": _pair(folder, config, module, found) for module, found in factors.items()}
    return pairs, replacements


def _saved_module_name(name: str) -> str:
    """The checkpoint's name of a tensor of modules_to_save, or of a resized base layer."""
    return re.sub(r"\.(base_layer|modules_to_save(\.default)?)\.", ".", name)


def _pair(folder: Path, config: Mapping[str, Any], module: str, found: Mapping[str, StoredTensor]) -> LowRank:
    is_embedding = "lora_embedding_A" in found
    names = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A", "lora_B")
    if set(found) != set(names):
        raise AdapterError(f"{folder}: {module} has {', '.join(sorted(found))}, not {' and '.join(names)}")
    a, b = found[names[0]], found[names[1]]
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise AdapterError(
            f"{folder}: {module} is a convolution's LoRA (shape {a.shape}), which cannot be merged"
        )
    r = int(_for_module(config.get("rank_pattern"), module, config.get("r")))
    if a.shape[0] != r or b.shape[1] != r:
        raise AdapterError(
            f"{folder}: {module} has rank {a.shape[0]} and {b.shape[1]}, its configuration says {r}"
        )
    alpha = float(_for_module(config.get("alpha_pattern"), module, config.get("lora_alpha")))
    return LowRank(a, b, alpha / (math.sqrt(r) if config.get("use_rslora") else r), is_embedding)


def _for_module(pattern: Mapping[str, Any] | None, module: str, default: float | None) -> float:
    """PEFT's rule: the first key that matches the module's name or its end after a dot (peft, get_pattern_key)."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return float(value)
    if default is None:
        raise AdapterError(f"the adapter's configuration gives no r or lora_alpha for {module}")
    return default
