from __future__ import annotations

import pytest

from edge.chat.template import ChatTemplate
from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from tests.tiny_gguf import TinyShape, write_gguf

# A prompt of a few tokens: tiny models have no use for the tools' text.
SHORT = ChatTemplate("{% if tools %}{# <tool_call> #}{% endif %}{{ messages[-1].content }}", "test")


ARCHITECTURES = ["llama", "qwen3", "qwen35"]


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory):
    """Tiny models with random weights by architecture; shared, because a file is tried in a child process once."""
    folder = tmp_path_factory.mktemp("tiny")
    return {a: write_gguf(folder / f"{a}.gguf", TinyShape(architecture=a)) for a in ARCHITECTURES}


@pytest.fixture(scope="session", params=ARCHITECTURES)
def tiny_engine(request, tiny_files):
    """An engine on a tiny model, one for each architecture."""
    path = tiny_files[request.param]
    with Engine(path, chat_template=SHORT, context=ContextOptions(n_threads=1)) as engine:
        yield engine
