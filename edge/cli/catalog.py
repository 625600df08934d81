"""What the commands over catalogues share: the cache folder, the embedding model, an index that is up to date."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.progress import tell
from edge.errors import RequestError

if TYPE_CHECKING:
    from edge.engine.engine import Engine
    from edge.tools.retrieval.index import ToolIndex
    from edge.tools.retrieval.offer import ToolOffer

DEFAULT_TOP_K = 5


def check_flags(
    catalog: Path | None, *, execute: bool, top_k: int | None, budget: int | None, embed_model: str | None
) -> None:
    """Raises RequestError for a flag that has nothing to work on."""
    if catalog is None and embed_model is not None:
        raise RequestError("--embed-model is given without --catalog; add it, or leave --embed-model out")
    for name, value in (("--top-k", top_k), ("--tool-budget", budget)):
        if value is not None and catalog is None and not execute:
            raise RequestError(
                f"{name} is given without --catalog or --execute; add one, or leave {name} out"
            )


@contextmanager
def open_catalog(path: Path, embed_model: str | None, *, n_threads: int | None = None) -> Iterator[ToolIndex]:
    """The index of a catalogue file, from the cache or built now."""
    from edge.engine.embedding import Embedder, EmbedderOptions
    from edge.models.store import resolve
    from edge.tools.retrieval.index import open_index

    with ExitStack() as stack:
        embedder = None
        if embed_model is not None:
            file = resolve(embed_model, tell).path
            embedder = stack.enter_context(Embedder(file, EmbedderOptions(n_threads=n_threads)))
        index, report = open_index(path, cache_dir(), embedder=embedder)
        stack.enter_context(index)
        if report.n_indexed or report.n_removed:
            tell(
                f"indexed {report.n_indexed} of {report.n_tools} tools of {path}, removed {report.n_removed}"
            )
        yield index


@contextmanager
def open_offer(
    catalog: Path | None, engine: Engine, *, k: int, budget: int | None, embed_model: str | None
) -> Iterator[ToolOffer | None]:
    """What offers a catalogue's tools to a conversation with this engine; None without a catalogue."""
    if catalog is None:
        yield None
        return
    with open_catalog(catalog, embed_model) as index:
        yield make_offer(index, engine, k=k, budget=budget)


def make_offer(index: ToolIndex, engine: Engine, *, k: int, budget: int | None) -> ToolOffer:
    """What offers an index's tools, counted in the engine's tokens. budget: by default a quarter of the context."""
    from edge.tools.retrieval.offer import BUDGET_SHARE, ToolOffer

    n_tokens = budget or max(1, engine.context.plan.n_ctx // BUDGET_SHARE)
    return ToolOffer(index, lambda text: len(engine.tokenize(text)), n_tokens, k)


def cache_dir() -> Path:
    """Where indexes are kept."""
    root = os.environ.get("SMOLTOOLS_EDGE_CACHE")
    if root is None:
        import platformdirs

        root = platformdirs.user_cache_dir("smoltools-edge")
    return Path(root) / "catalogs"
