"""Whether a running service is well with the model that it should have: its health, its model, and one tool call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from edge.deploy.errors import DeployError
from edge.deploy.settings import Endpoint

_POLL_S = 0.2
_CALL_S = 300.0  # a first call on a slow board computes the whole prompt
CITIES = ["Paris", "Rome"]
# So little freedom that even a model without sense ends the call.
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": CITIES}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
QUESTION = "What is the weather in Rome?"


def wait_until_healthy(endpoint: Endpoint, timeout_s: float, dead: Callable[[], str | None]) -> None:
    """Returns when /health says 200. Raises DeployError when it does not in time, or `dead` says why it never will."""
    deadline = time.monotonic() + timeout_s
    with _client(endpoint) as client:
        while (said := _health(client)) is not None:
            if (reason := dead()) is not None:
                raise DeployError(reason)
            if time.monotonic() > deadline:
                raise DeployError(f"{endpoint.url}/health was not 200 within {timeout_s:g} s ({said})")
            time.sleep(_POLL_S)


def _health(client: httpx.Client) -> str | None:
    """What is wrong; None, nothing is."""
    try:
        answer = client.get("/health", timeout=10)
    except httpx.HTTPError as exc:
        return type(exc).__name__
    return None if answer.status_code == 200 else f"{answer.status_code} {answer.text[:100]}"


def check_model(endpoint: Endpoint, size_bytes: int) -> None:
    """Raises DeployError if another model is served than one of this size: the service's settings name another file."""
    model = _json(endpoint, "GET", "/v1/models")["data"][0]
    served = model.get("meta", {}).get("size_bytes")
    if served != size_bytes:
        raise DeployError(
            f"the service serves {model.get('id')!r} of {served} bytes, not the new file of {size_bytes}; "
            "its SMOLTOOLS_EDGE_MODEL must name the link models/current"
        )


def check_call(endpoint: Endpoint) -> None:
    """Raises DeployError if a tool call does not come back as it must."""
    request = {
        "messages": [{"role": "user", "content": QUESTION}],
        "tools": [TOOL],
        "tool_choice": "required",
        "max_tokens": 200,
        "temperature": 0,
    }
    answer = _json(endpoint, "POST", "/v1/chat/completions", request)
    try:
        (call,) = answer["choices"][0]["message"]["tool_calls"][:1]
        is_good = call["function"]["name"] == "get_weather" and (
            json.loads(call["function"]["arguments"])["city"] in CITIES
        )
    except (KeyError, IndexError, TypeError, ValueError):
        is_good = False
    if not is_good:
        raise DeployError(f"the service answered without the tool call it was asked for: {str(answer)[:200]}")


def _json(endpoint: Endpoint, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
    try:
        with _client(endpoint) as client:
            answer = client.request(method, path, json=body, timeout=_CALL_S)
        if answer.status_code == 200:
            return answer.json()
    except (httpx.HTTPError, ValueError) as exc:
        raise DeployError(f"{path} failed: {type(exc).__name__}") from exc
    raise DeployError(f"{path} answered {answer.status_code}: {answer.text[:200]}")


def _client(endpoint: Endpoint) -> httpx.Client:
    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    # To this very machine: no proxy, and the certificate is made out to another name.
    return httpx.Client(base_url=endpoint.url, headers=headers, trust_env=False, verify=False)
