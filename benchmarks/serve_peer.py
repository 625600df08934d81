"""Valid tool calls per minute and per call, against llama-server, on the same model, threads and prompts in one run.

    python -m venv peer && peer/bin/pip install xllamacpp
    python -m benchmarks.serve_peer --peer-python peer/bin/python [--model REF] [--threads 2] [--rounds 3]

xllamacpp is llama-server as a package. Both are given the built-in Hermes template, greedy sampling, the same n_ctx for
each answer and as many slots as there are clients, and are warmed up by a burst of as many requests. The messages
begin with three earlier questions and their calls: without those the peer's grammar, which allows any text before a
call, gets few calls out of a model that was not trained on tools. A reply counts when it has calls and each parses,
names a given tool and validates against its schema, as judged here with json and jsonschema alone. The servers run
one after the other, in turns, never both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import jsonschema

from benchmarks.serve_process import serving, wait_ready
from edge.chat.template import hermes_template
from edge.models.store import resolve

CITIES = (
    "Paris",
    "Rome",
    "Oslo",
    "Lima",
    "Cairo",
    "Tokyo",
    "Delhi",
    "Quito",
    "Accra",
    "Turin",
    "Kyoto",
    "Lyon",
)
ASKS = (
    "What is the weather in {}?", "What time is it in {}?", "Set a timer of ten minutes for the {} train.",
    "Remind me to call the hotel in {}.", "Find a restaurant in {}.",
)  # fmt: skip


def _tool(
    name: str, description: str, properties: dict[str, object], required: Sequence[str]
) -> dict[str, object]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TEXT: dict[str, object] = {"type": "string"}
UNIT: dict[str, object] = {"enum": ["celsius", "fahrenheit"]}
TOOLS = [
    _tool("get_weather", "Current weather of a city", {"city": TEXT, "unit": UNIT}, ["city"]),
    _tool("get_time", "Local time of a city", {"city": TEXT}, ["city"]),
    _tool("set_timer", "Starts a timer", {"minutes": {"type": "integer", "minimum": 1}, "label": TEXT}, ["minutes"]),
    _tool("remind", "Notes something to remember", {"text": TEXT, "when": TEXT}, ["text"]),
    _tool("find_restaurant", "Restaurants near a place", {"place": TEXT, "open_now": {"type": "boolean"}}, ["place"]),
]  # fmt: skip
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}  # type: ignore[index]


def _turn(question: str, name: str, arguments: dict[str, object]) -> list[dict[str, object]]:
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return [{"role": "user", "content": question}, {"role": "assistant", "content": "", "tool_calls": [call]}]


EARLIER = [
    *_turn("What is the weather in Bern?", "get_weather", {"city": "Bern", "unit": "celsius"}),
    *_turn("What time is it in Graz?", "get_time", {"city": "Graz"}),
    *_turn("Remind me to buy milk.", "remind", {"text": "buy milk"}),
]


def bodies(n: int, max_tokens: int) -> list[dict[str, object]]:
    """Requests with different questions."""
    asked = [ask.format(city) for city in CITIES for ask in ASKS]
    return [
        {
            "model": "m",
            "messages": [*EARLIER, {"role": "user", "content": asked[i % len(asked)]}],
            "tools": TOOLS,
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        for i in range(n)
    ]


def is_valid(answer: httpx.Response) -> bool:
    """Whether a reply has calls and all are right in form."""
    if answer.status_code != 200:
        return False
    calls = answer.json()["choices"][0]["message"].get("tool_calls") or []
    try:
        for call in calls:
            arguments = json.loads(call["function"]["arguments"])
            jsonschema.validate(arguments, SCHEMAS[call["function"]["name"]])
    except (ValueError, KeyError, jsonschema.ValidationError):
        return False
    return bool(calls)


@dataclass(frozen=True, slots=True)
class Measured:
    """One server's figures in one round."""

    cold_burst_s: float
    calls_per_minute: float  # at all clients
    seconds_per_call: float  # at one client
    n_valid: int
    n_asked: int


def measure(url: str, *, clients: int, requests: int, max_tokens: int) -> Measured:
    """Warm-up, then all clients at once, then one."""

    def ask(body: dict[str, object]) -> bool:
        try:
            return is_valid(http.post("/v1/chat/completions", json=body))
        except httpx.HTTPError:
            return False

    def burst(given: Sequence[dict[str, object]], n_clients: int) -> tuple[float, int]:
        started = time.perf_counter()
        with ThreadPoolExecutor(n_clients) as pool:
            n_valid = sum(pool.map(ask, given))
        return time.perf_counter() - started, n_valid

    with httpx.Client(base_url=url, timeout=600) as http:
        given = bodies(requests, max_tokens)
        cold_s, _ = burst(given[:clients], clients)
        many_s, many = burst(given, clients)
        one_s, one = burst(given[: max(requests // 2, 1)], 1)
    return Measured(
        cold_burst_s=cold_s,
        calls_per_minute=60 * many / many_s,
        seconds_per_call=one_s / one if one else float("inf"),
        n_valid=many + one,
        n_asked=requests + max(requests // 2, 1),
    )


PEER = """
import importlib.metadata, json, sys
import xllamacpp as x
config = json.loads(sys.argv[1])
params = x.CommonParams()
params.model.path = config["path"]
params.n_parallel, params.n_ctx = config["slots"], config["slots"] * config["n_ctx"]
params.n_batch = params.n_ubatch = 512
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
params.n_gpu_layers = 0
params.use_jinja, params.chat_template = True, config["template"]
params.hostnames, params.port = ["127.0.0.1"], 0
try:
    params.verbosity = 0
except Exception:
    pass
server = x.Server(params)
info = {"system": x.get_system_info(), "build": importlib.metadata.version("xllamacpp") + " " + str(x.BUILD_INFO)}
print("PEER " + json.dumps({"url": server.listening_address} | info), flush=True)
sys.stdin.read()
"""


@contextmanager
def peer(python: Path, path: Path, args: argparse.Namespace) -> Iterator[dict[str, str]]:
    """llama-server with the same settings: its address and how it was built."""
    config = {
        "path": str(path), "slots": args.clients, "n_ctx": args.n_ctx, "threads": args.threads,
        "template": hermes_template().source,
    }  # fmt: skip
    with subprocess.Popen(
        [str(python), "-c", PEER, json.dumps(config)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            line = next((line for line in process.stdout if line.startswith("PEER ")), None)
            if line is None:
                raise SystemExit("the peer did not start")
            threading.Thread(target=process.stdout.read, daemon=True).start()
            told: dict[str, str] = json.loads(line.removeprefix("PEER "))
            wait_ready(told["url"], 120)
            yield told
        finally:
            process.kill()


def our_build() -> str:
    """How our llama.cpp was compiled."""
    from importlib.metadata import version

    import llama_cpp

    return f"llama-cpp-python {version('llama-cpp-python')}: {llama_cpp.llama_print_system_info().decode()}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--n-ctx", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    path = resolve(args.model, lambda line: None).path
    ours: list[Measured] = []
    theirs: list[Measured] = []
    how = {"clients": args.clients, "requests": args.requests, "max_tokens": args.max_tokens}
    for n in range(args.rounds):
        with serving(
            "--model", args.model, "--n-ctx", str(args.n_ctx), "--threads", str(args.threads), "--kv-type", "f16",
            "--parallel", str(args.clients), "--max-queue", "64", "--state-cache", "off",
        ) as served:  # fmt: skip
            ours.append(measure(served.url, **how))
        _show("here", n, ours[-1])
        with peer(args.peer_python, path, args) as told:
            theirs.append(measure(told["url"], **how))
        _show("llama-server", n, theirs[-1])
    print(f"here:         {our_build()}")
    print(f"llama-server: xllamacpp {told['build']}: {told['system']}")
    print(json.dumps(summary(ours, theirs)))
    return 0


def _show(name: str, n: int, found: Measured) -> None:
    print(
        f"{name:>12} {n}: {found.calls_per_minute:7.1f} valid calls/min, {found.seconds_per_call:6.2f} s a call alone, "
        f"{found.n_valid} of {found.n_asked} valid, cold burst {found.cold_burst_s:.1f} s",
        flush=True,
    )


def summary(ours: Sequence[Measured], theirs: Sequence[Measured]) -> dict[str, float]:
    """Medians over the rounds, and their ratios."""

    def median(found: Sequence[Measured], name: str) -> float:
        return statistics.median(float(getattr(one, name)) for one in found)

    names = ("calls_per_minute", "seconds_per_call", "cold_burst_s")
    report = {f"{name}_here": round(median(ours, name), 3) for name in names}
    report |= {f"{name}_peer": round(median(theirs, name), 3) for name in names}
    for name in names:
        report[f"{name}_ratio"] = round(median(ours, name) / median(theirs, name), 3)
    return report


if __name__ == "__main__":
    sys.exit(main())
