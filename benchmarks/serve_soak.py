"""Does anything leak when 1,000 requests come and every tenth client hangs up?

    python -m benchmarks.serve_soak [--model REF] [--requests 1000] [--clients 8] [--parallel 4]

The requests are of all kinds: whole and streamed, with tools and without, with a schema, refused ones, ones that run
into their deadline. Asked: every sequence is free at the end, nothing runs or waits, and the resident memory after the
last request is within 2 % of that after the first third. Exit code 3 where that is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter

import httpx
import psutil

from benchmarks.serve_process import Served, serving

MAX_GROWTH = 0.02
_EXPECTED = ("200", "400", "504", "hung up", "finished before it could hang up")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "unit": {"enum": ["celsius", "kelvin"]},
            },
            "required": ["city"],
        },
    },
}
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}


def _request(rng: random.Random, number: int) -> dict[str, object]:
    words = " ".join(rng.choice(("sun", "rain", "snow", "wind")) for _ in range(rng.randint(1, 60)))
    asked = [{"role": "user", "content": f"{number}: {words}"}]
    body: dict[str, object] = {"messages": asked, "max_tokens": rng.randint(8, 32), "seed": number}
    kind = rng.randrange(8)
    if kind in (0, 1, 2):
        body |= {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 64}
    elif kind == 3:
        wrapped = {"name": "colour", "schema": COLOUR}
        body |= {"response_format": {"type": "json_schema", "json_schema": wrapped}}
    elif kind == 4:
        body |= {"max_tokens": 0}  # refused
    elif kind == 5:
        body |= {"deadline_s": 0.02, "max_tokens": 200}
    return body | {"stream": rng.random() < 0.5}


async def _ask(http: httpx.AsyncClient, rng: random.Random, number: int, hangs_up: bool) -> str:
    body = _request(rng, number)
    if hangs_up:
        body |= {"max_tokens": 300, "deadline_s": 60}
        timeout = rng.choice((0.001, 0.02, 0.1, 0.3))
        try:
            await asyncio.wait_for(http.post("/v1/chat/completions", json=body), timeout)
        except (TimeoutError, httpx.HTTPError):
            return "hung up"
        return "finished before it could hang up"
    try:
        answer = await http.post("/v1/chat/completions", json=body)
    except httpx.HTTPError as exc:
        return f"lost: {type(exc).__name__}"
    return str(answer.status_code)


async def _run(served: Served, n_requests: int, n_clients: int, seed: int) -> tuple[Counter[str], list[int]]:
    rng, found = random.Random(seed), Counter[str]()
    resident: list[int] = []
    numbers = iter(range(n_requests))
    process = psutil.Process(served.pid)
    limits = httpx.Limits(max_connections=n_clients)
    async with httpx.AsyncClient(base_url=served.url, timeout=120, limits=limits) as http:

        async def client() -> None:
            for number in numbers:
                found[await _ask(http, rng, number, hangs_up=number % 10 == 9)] += 1
                resident.append(process.memory_info().rss)

        await asyncio.gather(*(client() for _ in range(n_clients)))
    return found, resident


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with serving(
        "--model", args.model, "--n-ctx", "512", "--threads", str(args.threads), "--state-cache", "off",
        "--parallel", str(args.parallel), "--max-queue", "64",
    ) as served:  # fmt: skip
        found, resident = asyncio.run(_run(served, args.requests, args.clients, args.seed))
        health = served.wait_until_idle()
        last = psutil.Process(served.pid).memory_info().rss
    third = resident[len(resident) // 3]
    growth = last / third - 1
    for name, number in sorted(found.items()):
        print(f"{name:>34}  {number:>5}")
    is_free = (health["sequences_free"], health["running"], health["queued"]) == (args.parallel, 0, 0)
    unexpected = sum(
        n for name, n in found.items() if name not in ("200", "400", "504") and name[0].isdigit()
    )
    report = {
        "requests": sum(found.values()),
        "hung_up": found["hung up"],
        "lost_or_unexpected": unexpected,
        "sequences_free": health["sequences_free"],
        "resident_mib_after_a_third": round(third / 2**20, 1),
        "resident_mib_at_the_end": round(last / 2**20, 1),
        "growth_percent": round(100 * growth, 2),
        "as_asked": is_free and not unexpected and growth <= MAX_GROWTH,
    }
    print(json.dumps(report))
    return 0 if report["as_asked"] else 3


if __name__ == "__main__":
    sys.exit(main())
