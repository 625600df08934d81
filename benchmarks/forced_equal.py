"""Is the greedy answer the same with forcing on and off? Where not, which token was the first to differ, and why?

    python -m benchmarks.forced_equal --tools tools.jsonl [--model demo] [--cases 100]

Each case offers one tool of the file, names it, and asks twice, behind a few turns that show the form of a call: a
model that was never trained on it writes it in odd pieces otherwise.
Two answers that differ do so for one of two reasons:

  tokenization  without forcing the model wrote text that leaves it no choice in pieces other than those of the whole
                text's tokenization (`"pa`, `th"` for `"path"`). Forced text is always in the pieces of the whole, which
                is what a model is trained on; the state behind it is another one, and so may be what follows.
  near tie      the tokens are the same up to there, and two candidates are so close that decoding a run in one batch
                instead of one by one decides between them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.valid_calls import SHORT, read_tools
from edge import ChatRequest, ContextOptions, SamplingOptions, Tool
from edge.engine.engine import Engine
from edge.engine.model import Vocabulary
from edge.errors import RequestError
from edge.models.store import resolve
from edge.types import Reply

_SHOWN = [
    ("What time is it in Oslo?", "get_time", {"zone": "Europe/Oslo"}),
    ("Remind me to buy bread.", "add_reminder", {"text": "buy bread", "priority": 2}),
    ("Is it raining in Lima?", "get_weather", {"city": "Lima", "days": 1}),
]


def shown_calls() -> list[dict[str, object]]:
    """Turns of other calls, in the form that the model is to write."""
    turns: list[dict[str, object]] = []
    for question, name, arguments in _SHOWN:
        call = json.dumps({"name": name, "arguments": arguments})
        turns.append({"role": "user", "content": question})
        turns.append({"role": "assistant", "content": f"<tool_call>\n{call}\n</tool_call>"})
    return turns


def ask(engine: Engine, tool: Tool, *, force: bool, max_tokens: int) -> tuple[Reply, list[int]]:
    """The answer and its tokens."""
    request = ChatRequest(
        messages=[
            *shown_calls(),
            {"role": "user", "content": f"{tool.description or ''} Use {tool.name}."[-400:]},
        ],
        tools=[tool],
        tool_choice=tool.name,
        max_tokens=max_tokens,
        sampling=SamplingOptions(temperature=0.0),
        force_text=force,
    )
    reply = engine.chat(request)
    assert engine.last_generation is not None
    return reply, list(engine.last_generation.tokens)


def reason(vocab: Vocabulary, forced: Sequence[int], free: Sequence[int]) -> tuple[str, str]:
    """Why two answers differ, and the pieces of the free one around the place."""
    at = next((i for i, (a, b) in enumerate(zip(forced, free, strict=False)) if a != b), len(forced))
    shown = " ".join(repr(vocab.piece(t).decode("utf-8", "replace")) for t in free[max(at - 2, 0) : at + 3])
    behind = [b"".join(map(vocab.piece, tokens[at:])) for tokens in (forced, free)]
    n = min(8, *map(len, behind))  # the same text goes on in other pieces
    return ("tokenization" if n and behind[0][:n] == behind[1][:n] else "near tie"), shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, action="append", required=True)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--max-tokens", type=int, default=120)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    tools, _ = read_tools(args.tools)
    chosen = random.Random(0).sample(tools, min(args.cases, len(tools)))
    counts: Counter[str] = Counter()
    path = resolve(args.model, lambda line: print(line, file=sys.stderr)).path
    options = ContextOptions(n_ctx=1024, n_threads=args.threads)
    with Engine(path, chat_template=SHORT, context=options) as engine:
        for tool in chosen:
            try:
                forced, forced_tokens = ask(engine, tool, force=True, max_tokens=args.max_tokens)
            except RequestError:  # not even its shortest call fits --max-tokens
                counts["too long"] += 1
                continue
            free, free_tokens = ask(engine, tool, force=False, max_tokens=args.max_tokens)
            counts["same tokens"] += forced_tokens == free_tokens
            if [c.arguments for c in forced.tool_calls] == [c.arguments for c in free.tool_calls]:
                counts["same call"] += 1
                continue
            why, shown = reason(engine.model.vocab, forced_tokens, free_tokens)
            counts[why] += 1
            print(f"{tool.name}: {why} at {shown}", file=sys.stderr)
    print(json.dumps({"cases": len(chosen), **counts}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
