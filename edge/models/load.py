"""From a model reference to an engine: the catalogue's template and context for a known model."""

from __future__ import annotations

from edge.chat.template import hermes_template
from edge.engine.context import ContextOptions
from edge.engine.engine import DEFAULT_TEMPERATURE, Engine
from edge.engine.model import ModelOptions
from edge.engine.state_cache import StateCacheOptions
from edge.models.download import OnBytes
from edge.models.store import Progress, ignore_bytes, resolve


def load(
    ref: str,
    *,
    context: ContextOptions | None = None,
    model: ModelOptions | None = None,
    n_parallel: int = 1,
    max_queue: int = 64,
    state_cache: StateCacheOptions | None = None,
    progress: Progress = lambda line: None,
    on_bytes: OnBytes = ignore_bytes,
) -> Engine:
    """An engine for a catalogue name, user/repo[:QUANT] or a path to a .gguf file; fetches what is not here.

    n_parallel, max_queue, state_cache: see `Engine`. progress: told what is being fetched, a line
    each. on_bytes: called as its bytes come. Raises EdgeError.
    """
    resolved = resolve(ref, progress, on_bytes=on_bytes)
    entry = resolved.entry
    template = hermes_template(entry.default_system) if entry and entry.chat_template == "hermes" else None
    temperature = entry.temperature if entry else DEFAULT_TEMPERATURE
    return Engine(
        resolved.path,
        chat_template=template,
        temperature=temperature,
        model=model,
        context=context,
        n_parallel=n_parallel,
        max_queue=max_queue,
        state_cache=state_cache,
    )
