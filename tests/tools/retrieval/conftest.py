from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.tools.retrieval.catalogue import CatalogueTool, read_catalogue
from edge.tools.retrieval.index import ToolIndex
from edge.types import Tool

DATA = Path(__file__).parent / "data"


def entry(name: str, description: str = "", group: str = "", **parameters: object) -> CatalogueTool:
    schema = {"type": "object", "properties": parameters}
    return CatalogueTool(name, Tool(name, schema, description), group)


class FakeEmbedder:
    """Knows three topics by their words; counts the texts it was given."""

    TOPICS = (("weather", "umbrella", "rain"), ("mail", "letter", "post"), ("music", "song", "tune"))

    def __init__(self, identity: str = "fake") -> None:
        self.identity = identity
        self.n_embedded = 0

    def embed(self, texts, *, query=False):
        self.n_embedded += len(texts)
        rows = [
            [sum(word in text.lower() for word in topic) + 0.01 for topic in self.TOPICS] for text in texts
        ]
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def household() -> ToolIndex:
    return ToolIndex.in_memory(read_catalogue(DATA / "household_catalog.jsonl"))
