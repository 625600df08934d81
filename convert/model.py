"""A checkpoint, its architecture and its adapters joined into one plan, or refused before a weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from convert.architectures import Architecture, ModelConfig, architecture_of
from convert.checkpoint import Checkpoint, StoredTensor, one_line
from convert.errors import AdapterError, CheckpointError, UnsupportedModel
from convert.lora import Adapter, LowRank, WeightSource, row_reader
from convert.plan import Field, TensorPlan, copied

_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_COMPARE_ROWS = 2048

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What will be written. sources: by the plan's source name. notes: what was dropped or is unusual."""

    architecture: Architecture
    config: ModelConfig
    fields: tuple[Field, ...]
    tensors: tuple[TensorPlan, ...]
    sources: dict[str, WeightSource]
    notes: tuple[str, ...]

    def source_of(self, plan: TensorPlan) -> WeightSource | None:
        return self.sources.get(plan.source)


def plan_model(checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()) -> ModelPlan:
    """The plan for a checkpoint with adapters merged.

    Raises UnsupportedModel, CheckpointError (tensors missing, unexpected or of the wrong shape) or AdapterError.
    """
    config, architecture, notes, fields, plans = _read_config(checkpoint)
    stored, dropped = _kept_tensors(architecture, checkpoint)
    notes += dropped
    sources = {name: WeightSource(tensor) for name, tensor in stored.items()}
    _check_shapes([*plans, _head_plan(config)], sources)
    notes += _join_head(config, sources)
    _merge(architecture, sources, adapters, notes)
    notes += _drop_equal_head(sources)
    if _HEAD in sources:
        plans = [*plans, _head_plan(config)]
    return ModelPlan(
        architecture=architecture,
        config=config,
        fields=tuple(fields),
        tensors=tuple(plans),
        sources=sources,
        notes=(*notes, *(note for adapter in adapters for note in adapter.notes)),
    )


def _read_config(
    checkpoint: Checkpoint,
) -> tuple[ModelConfig, Architecture, list[str], list[Field], list[TensorPlan]]:
    """All that follows from config.json alone. A value of a wrong kind anywhere in it is UnsupportedModel."""
    try:
        config = ModelConfig.from_json(checkpoint.config)
        architecture = architecture_of(config)
        notes = architecture.check(config)
        return config, architecture, notes, architecture.fields(config), architecture.tensors(config)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise UnsupportedModel(f"config.json holds a value that makes no sense: {one_line(error)}") from error


def _kept_tensors(
    architecture: Architecture, checkpoint: Checkpoint
) -> tuple[dict[str, StoredTensor], list[str]]:
    kept: dict[str, StoredTensor] = {}
    dropped: dict[str, int] = {}
    for name, tensor in checkpoint.tensors.items():
        reason = architecture.dropped(name)
        if reason is None:
            kept[architecture.rename(name)] = tensor
        else:
            dropped[reason] = dropped.get(reason, 0) + 1
    return kept, [f"{count} tensors dropped: {reason}" for reason, count in sorted(dropped.items())]


def _merge(
    architecture: Architecture,
    sources: dict[str, WeightSource],
    adapters: Iterable[Adapter],
    notes: list[str],
) -> None:
    for adapter in adapters:
        replacements = _renamed(architecture, adapter, adapter.replacements, notes)
        pairs = _renamed(architecture, adapter, adapter.pairs, notes)
        _separate_head(sources, adapter, {*replacements, *pairs}, set(pairs))
        for name, tensor in replacements.items():
            _replace(sources, adapter, name, tensor)
        for name, pair in pairs.items():
            _add_pair(sources, adapter, name, pair)


def _renamed(
    architecture: Architecture, adapter: Adapter, tensors: Mapping[str, T], notes: list[str]
) -> dict[str, T]:
    kept = {}
    for name, tensor in tensors.items():
        reason = architecture.dropped(name)
        if reason is None:
            kept[architecture.rename(name)] = tensor
        else:
            notes.append(f"adapter {adapter.name}: {name} dropped: {reason}")
    return kept


def _separate_head(
    sources: dict[str, WeightSource], adapter: Adapter, touched: set[str], paired: set[str]
) -> None:
    """Give a tied model a head of its own where the adapter trained only one of the two.

    That is what the trained model computes: LoRA and modules_to_save act on one module, and the other goes on
    with the base's values. (peft's merge_and_unload writes into the shared parameter, and warns of it.)
    """
    if _HEAD in sources or _EMBEDDING not in sources or not touched & {_HEAD, _EMBEDDING}:
        return
    if not adapter.ties_embeddings:
        sources[_HEAD] = sources[_EMBEDDING]
    elif paired & {_HEAD, _EMBEDDING}:
        raise AdapterError(
            f"adapter {adapter.name}: LoRA on embeddings with ensure_weight_tying is not supported"
        )


def _replace(sources: dict[str, WeightSource], adapter: Adapter, name: str, tensor: StoredTensor) -> None:
    base = sources.get(name)
    if base is None:
        raise AdapterError(f"adapter {adapter.name} has {name}, which this checkpoint lacks")
    if base.stored.shape != tensor.shape:
        raise AdapterError(
            f"adapter {adapter.name} is for another base: {name} has shape {list(tensor.shape)}, "
            f"the checkpoint {list(base.stored.shape)}"
        )
    if base.is_merged:
        raise AdapterError(f"adapter {adapter.name} replaces {name}, which an earlier adapter changed")
    sources[name] = WeightSource(tensor)


def _add_pair(sources: dict[str, WeightSource], adapter: Adapter, name: str, pair: LowRank) -> None:
    source = sources.get(name)
    if source is None:
        raise AdapterError(f"adapter {adapter.name} has {name}, which this checkpoint lacks")
    if source.stored.shape != pair.shape:
        raise AdapterError(
            f"adapter {adapter.name} is for another base: {name} would change shape {list(pair.shape)}, "
            f"the checkpoint has {list(source.stored.shape)}"
        )
    sources[name] = replace(source, pairs=(*source.pairs, pair))


def _join_head(config: ModelConfig, sources: dict[str, WeightSource]) -> list[str]:
    """Drop a stored head that config.json ties to the embedding, before adapters can tell the two apart.

    A head that differs from the embedding is kept, as transformers 5 does.
    """
    tied = config.values.get("tie_word_embeddings")
    embedding, head = sources.get(_EMBEDDING), sources.get(_HEAD)
    if head is None and tied is False:
        raise CheckpointError(f"config.json says tie_word_embeddings is false, but {_HEAD} is missing")
    if head is None or embedding is None or not tied:
        return []
    if same_values(head, embedding):
        del sources[_HEAD]
        return [_dropped_head_note(head)]
    return [f"{_HEAD} differs from the embedding although config.json ties them: kept"]


def _drop_equal_head(sources: dict[str, WeightSource]) -> list[str]:
    """Drop an untied head that holds the embedding's very values: the loader reuses the embedding."""
    embedding, head = sources.get(_EMBEDDING), sources.get(_HEAD)
    if embedding is None or head is None or not same_values(head, embedding):
        return []
    del sources[_HEAD]
    return [_dropped_head_note(head)]


def _dropped_head_note(head: WeightSource) -> str:
    return f"{_HEAD} equals the embedding: dropped ({head.stored.n_bytes / 1e9:.2f} GB)"


def same_values(one: WeightSource, other: WeightSource) -> bool:
    """Whether two sources give the same bits, after merging; stops at the first difference."""
    if one.stored.shape != other.stored.shape or one.kind != other.kind:
        return False
    read_one, read_other = row_reader(one), row_reader(other)
    n_rows = one.stored.n_rows
    for start in range(0, n_rows, _COMPARE_ROWS):
        stop = min(start + _COMPARE_ROWS, n_rows)
        if not np.array_equal(read_one(start, stop), read_other(start, stop)):
            return False
    return True


def _head_plan(config: ModelConfig) -> TensorPlan:
    return copied("output.weight", _HEAD, config.n_vocab, config.n_embd)


def _check_shapes(plans: Iterable[TensorPlan], sources: Mapping[str, WeightSource]) -> None:
    """Every needed tensor is there in the shape that config.json asks for, and nothing else is (head optional)."""
    needed = {plan.source: plan for plan in plans if plan.source}
    missing = [name for name in needed if name not in sources and name != _HEAD]
    if missing:
        raise CheckpointError(f"the checkpoint lacks {len(missing)} tensors, first {missing[0]}")
    unexpected = [name for name in sources if name not in needed]
    if unexpected:
        raise CheckpointError(
            f"{len(unexpected)} tensors are not part of this architecture, first {unexpected[0]}"
        )
    for name, source in sources.items():
        if source.stored.shape != needed[name].source_shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(source.stored.shape)}, "
                f"config.json asks for {list(needed[name].source_shape)}"
            )
