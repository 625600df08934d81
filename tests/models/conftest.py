from __future__ import annotations

import random

import pytest
from huggingface_hub import close_session, constants

from edge.models import download as download_module
from tests.models.fake_hub import FakeHub

REPO = "tiny/model-GGUF"
SIZE = 400_000
CONTENT = b"GGUF" + random.Random(0).randbytes(SIZE - 4)
PATH = "model-Q4_K_M.gguf"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and an empty folder of our own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path / "own"))
    return tmp_path / "hub"


@pytest.fixture
def hub(cache, monkeypatch):
    """A hub with one repository, asked by huggingface_hub in this process; waits are short."""
    with FakeHub() as server:
        server.repos[REPO] = {PATH: CONTENT, "model-Q8_0.gguf": CONTENT * 2, "README.md": b"# tiny"}
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 10)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 10)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache.parent / "no-token"))
        monkeypatch.setattr(download_module, "RETRY_WAITS_S", (0.01, 0.01, 0.01))
        yield server
        close_session()
