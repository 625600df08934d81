"""Agent frameworks pointed at the endpoint; opt-in, each needs its package (`pip install langchain-openai`, ...)."""

from __future__ import annotations

import functools
import gc
import operator

import pytest

from tests.server.fake_engine import calling, saying

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # they keep connections open
]


@pytest.fixture(autouse=True)
def connections_that_were_left_open():
    yield
    gc.collect()


def test_langchain_calls_a_tool_and_streams(serve):
    langchain = pytest.importorskip("langchain_openai")
    from langchain_core.tools import tool

    @tool
    def get_weather(city: str) -> str:
        """Weather of a city."""
        return f"18 degrees in {city}"

    server = serve(calling(("get_weather", {"city": "Paris"})))
    model = langchain.ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", model="m")
    asking = model.bind_tools([get_weather])
    streamed = functools.reduce(operator.add, asking.stream("Weather in Paris?"))
    for message in (asking.invoke("Weather in Paris?"), streamed):
        assert message.tool_calls[0]["name"] == "get_weather"
        assert message.tool_calls[0]["args"] == {"city": "Paris"}


def test_pydantic_ai_runs_a_tool_and_answers(serve):
    pytest.importorskip("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def script(request):
        has_result = any(message["role"] == "tool" for message in request.messages)
        return saying("It is 18 degrees.") if has_result else calling(("get_weather", {"city": "Paris"}))

    server = serve(script)
    provider = OpenAIProvider(base_url=f"{server.url}/v1", api_key="none")
    agent = Agent(OpenAIChatModel("m", provider=provider))
    asked = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Weather of a city."""
        asked.append(city)
        return "18 degrees"

    assert agent.run_sync("Weather in Paris?").output == "It is 18 degrees."
    assert asked == ["Paris"]
