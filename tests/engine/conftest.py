from __future__ import annotations

import pytest

from edge.chat.template import ChatTemplate
from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from tests.tiny_gguf import TinyShape, write_gguf

# A prompt of a few tokens: tiny models have no use for the tools' text.
SHORT = ChatTemplate("{% if tools %}{# <tool_call> #}{% endif %}{{ messages[-1].content }}", "test")


@pytest.fixture(scope="session", params=["llama", "qwen3", "qwen35"])
def tiny_engine(request, tmp_path_factory):
    """An engine on a tiny model with random weights, one for each architecture."""
    path = write_gguf(tmp_path_factory.mktemp("tiny") / "m.gguf", TinyShape(architecture=request.param))
    with Engine(path, chat_template=SHORT, context=ContextOptions(n_threads=1)) as engine:
        yield engine
