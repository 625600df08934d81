"""Does anything leak when 1,000 requests come and every tenth client hangs up?

    python -m benchmarks.serve_soak [--model REF] [--requests 1000] [--clients 8] [--parallel 4] [--plant-kib 20]

The requests are of all kinds: whole and streamed, with tools and without, with a schema, refused ones, ones that run
into their deadline. Asked: every sequence is free at the end, nothing runs or waits, and the resident memory is flat.

Flat: the last third's median is within 2 % of the second third's, and what is the process's own has grown between the
two by less than 10 KiB a request. The first third fills what is bounded: the last 64 turns, parsed grammars, compiled
schemas, the model's pages. Exit code 3 where that is not so.

--plant-kib makes the server leak so much with each request: what this does not find, it cannot find.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.serve_process import Served, serving

MAX_GROWTH, MAX_KIB_PER_REQUEST = 0.02, 10.0
_EXPECTED = ("200", "400", "504")
_LEAKING = """
from edge.server.access import Access
from edge.cli.start import main

call, kept = Access.__call__, []

async def leaking(self, scope, receive, send):
    kept.append(b"x" * {n_bytes})
    await call(self, scope, receive, send)

Access.__call__ = leaking
main()
"""
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


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's memory at one moment. own_bytes: without the pages of files."""

    resident_bytes: int
    own_bytes: int


@dataclass(frozen=True, slots=True)
class Flatness:
    """How memory went on when all that is bounded was full, by the medians of the last two thirds.

    plateau_at: the request from which on a twentieth's median stayed within 2 % of the last one's.
    """

    second_mib: float
    last_mib: float
    growth: float
    kib_per_request: float
    plateau_at: int

    @property
    def is_flat(self) -> bool:
        """Whether that is a plateau and no slope."""
        return self.growth <= MAX_GROWTH and self.kib_per_request <= MAX_KIB_PER_REQUEST


def flatness(found: Sequence[Memory]) -> Flatness:
    """Of one value a request, in the order of their ends."""
    n = len(found) // 3
    second, last = (statistics.median(m.resident_bytes for m in part) for part in (found[n:-n], found[-n:]))
    own = [statistics.median(m.own_bytes for m in part) for part in (found[n:-n], found[-n:])]
    return Flatness(
        second / 2**20, last / 2**20, last / second - 1, (own[1] - own[0]) / 2**10 / n, _plateau_at(found)
    )


def _plateau_at(found: Sequence[Memory]) -> int:
    n = max(len(found) // 20, 1)
    starts = range(0, len(found) - n + 1, n)
    medians = [statistics.median(m.resident_bytes for m in found[start : start + n]) for start in starts]
    far = [i for i, median in enumerate(medians) if abs(median / medians[-1] - 1) > MAX_GROWTH]
    return (far[-1] + 1) * n if far else 0


def _memory(process: psutil.Process) -> Memory:
    info = process.memory_info()
    return Memory(info.rss, info.rss - info.shared)


async def _run(
    served: Served, n_requests: int, n_clients: int, seed: int
) -> tuple[Counter[str], list[Memory]]:
    rng, found = random.Random(seed), Counter[str]()
    memory: list[Memory] = []
    numbers = iter(range(n_requests))
    process = psutil.Process(served.pid)
    limits = httpx.Limits(max_connections=n_clients)
    async with httpx.AsyncClient(base_url=served.url, timeout=120, limits=limits) as http:

        async def client() -> None:
            for number in numbers:
                found[await _ask(http, rng, number, hangs_up=number % 10 == 9)] += 1
                memory.append(_memory(process))

        await asyncio.gather(*(client() for _ in range(n_clients)))
    return found, memory


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant-kib", type=int, default=0)
    args = parser.parse_args()
    if args.requests < 60:
        parser.error(f"--requests is {args.requests}; at least 60 are needed to compare thirds of them")
    return args


def main() -> int:
    args = _parsed()
    program = ("-c", _LEAKING.format(n_bytes=args.plant_kib << 10)) if args.plant_kib else ("-m", "edge.cli")
    with serving(
        "--model", args.model, "--n-ctx", "512", "--threads", str(args.threads), "--state-cache", "off",
        "--parallel", str(args.parallel), "--max-queue", "64", program=program,
    ) as served:  # fmt: skip
        found, memory = asyncio.run(_run(served, args.requests, args.clients, args.seed))
        health = served.wait_until_idle()
    for name, number in sorted(found.items()):
        print(f"{name:>34}  {number:>5}")
    is_free = (health["sequences_free"], health["running"], health["queued"]) == (args.parallel, 0, 0)
    unexpected = sum(
        n for name, n in found.items() if name not in _EXPECTED and (name[0].isdigit() or "lost" in name)
    )
    flat = flatness(memory)
    report = {
        "requests": sum(found.values()),
        "hung_up": found["hung up"],
        "lost_or_unexpected": unexpected,
        "sequences_free": health["sequences_free"],
        "resident_mib_second_third": round(flat.second_mib, 1),
        "resident_mib_last_third": round(flat.last_mib, 1),
        "growth_percent": round(100 * flat.growth, 2),
        "own_kib_per_request": round(flat.kib_per_request, 2),
        "plateau_at_request": flat.plateau_at,
        "as_asked": is_free and not unexpected and flat.is_flat,
    }
    print(json.dumps(report))
    return 0 if report["as_asked"] else 3


if __name__ == "__main__":
    sys.exit(main())
