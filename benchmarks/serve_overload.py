"""What becomes of 64 simultaneous requests against 4 sequences and a queue of 16?

    python -m benchmarks.serve_overload [--model REF] [--requests 64] [--parallel 4] [--max-queue 16] [--max-tokens 200]

Asked: as many are answered as there are places, all others refused at once with 429 and Retry-After; none lost, none
hung, and afterwards every sequence is free. Exit code 3 where that is not so. An answer must take longer than it
takes for all requests to arrive, or a place is used twice: take more --max-tokens then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass

import httpx

from benchmarks.serve_process import serving


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request's fate."""

    status: int
    seconds: float
    is_right: bool


async def _ask(http: httpx.AsyncClient, max_tokens: int, number: int) -> Outcome:
    body = {
        "messages": [{"role": "user", "content": f"Count upwards from {number}, in words."}],
        "max_tokens": max_tokens,
        "temperature": 1.0,
    }
    started = time.perf_counter()
    try:
        answer = await http.post("/v1/chat/completions", json=body)
    except httpx.HTTPError:
        return Outcome(0, time.perf_counter() - started, False)
    seconds = time.perf_counter() - started
    if answer.status_code == 200:
        choice = answer.json()["choices"][0]
        is_right = bool(choice["message"]["content"]) and choice["finish_reason"] in ("stop", "length")
    else:
        is_right = int(answer.headers.get("retry-after", 0)) >= 1 and "error" in answer.json()
    return Outcome(answer.status_code, seconds, is_right)


async def _burst(url: str, n: int, max_tokens: int) -> list[Outcome]:
    limits = httpx.Limits(max_connections=n)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:
        return await asyncio.gather(*(_ask(http, max_tokens, i) for i in range(n)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--max-queue", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with serving(
        "--model", args.model, "--n-ctx", "1024", "--threads", str(args.threads), "--state-cache", "off",
        "--parallel", str(args.parallel), "--max-queue", str(args.max_queue),
    ) as served:  # fmt: skip
        outcomes = asyncio.run(_burst(served.url, args.requests, args.max_tokens))
        health = served.wait_until_idle()
    found = Counter(outcome.status for outcome in outcomes)
    n_places = args.parallel + args.max_queue
    refused_s = max((o.seconds for o in outcomes if o.status == 429), default=0.0)
    print(f"{'status':>8}  {'number':>6}")
    for status, number in sorted(found.items()):
        print(f"{status or 'lost':>8}  {number:>6}")
    as_asked = found == Counter({200: n_places, 429: args.requests - n_places})
    is_right = all(outcome.is_right for outcome in outcomes)
    is_free = (health["sequences_free"], health["running"]) == (args.parallel, 0)
    report = {
        "answered": found[200],
        "refused": found[429],
        "others": args.requests - found[200] - found[429],
        "all_right": is_right,
        "slowest_refusal_s": round(refused_s, 3),
        "last_answer_s": round(max(outcome.seconds for outcome in outcomes), 2),
        "sequences_free": health["sequences_free"],
        "as_asked": as_asked and is_right and is_free,
    }
    print(json.dumps(report))
    return 0 if report["as_asked"] else 3


if __name__ == "__main__":
    sys.exit(main())
