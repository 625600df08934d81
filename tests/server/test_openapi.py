"""The OpenAPI description, and requests made up from it: whatever comes, no 5xx."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error

from edge.server.app import create_app
from edge.server.options import ServerOptions
from tests.server.fake_engine import FakeEngine, calling, saying


def script(request):
    if getattr(request, "tools", ()) and request.tool_choice not in ("none", "auto"):
        return calling(("f", {}))
    return saying("ok")


APP = create_app(FakeEngine(script, n_parallel=2, max_queue=1000), ServerOptions())
DESCRIPTION = schemathesis.openapi.from_asgi("/openapi.json", APP)
ODD = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def no_failure_of_the_server(ctx, response, case):
    """504 is what a request asks for that states a deadline and runs into it."""
    if response.status_code == 504 and (case.body or {}).get("deadline_s") is not None:
        assert response.json()["error"]["code"] == "deadline_exceeded"
        return
    not_a_server_error(ctx, response, case)


def test_the_description_names_every_address_and_what_it_takes():
    document = APP.openapi()
    assert set(document["paths"]) == {
        "/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{model_id}", "/v1/tokenize",
        "/v1/detokenize", "/health", "/metrics",
    }  # fmt: skip
    body = document["components"]["schemas"]["ChatBody"]
    assert body["required"] == ["messages"]
    assert {"tools", "tool_choice", "response_format", "stream", "seed", "n", "logprobs"} <= set(
        body["properties"]
    )
    assert document["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
    assert "security" not in document["paths"]["/health"]["get"]


@DESCRIPTION.parametrize()
@settings(
    max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=ODD
)
def test_no_request_makes_a_server_error(case):
    case.call_and_validate(checks=[no_failure_of_the_server], headers={"host": "127.0.0.1"})


@pytest.mark.heavy
@DESCRIPTION.parametrize()
@settings(max_examples=1_000, deadline=None, suppress_health_check=ODD)
def test_no_request_of_thousands_makes_a_server_error(case):
    case.call_and_validate(checks=[no_failure_of_the_server], headers={"host": "127.0.0.1"})
