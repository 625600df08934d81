"""How many of N constrained calls are valid, at a temperature at which the model writes nonsense?

    python -m benchmarks.valid_calls --tools tools.jsonl [--tools more.jsonl] [--calls 1000] [--temperature 1.5]
    python -m benchmarks.valid_calls --tools tools.jsonl --random qwen35 --calls 10000 --temperature 2 --least 1

Each line of a tools file is a JSON object with a tool under `tool` or a list under `tools`. Every call is checked
here again, with `json` and `jsonschema` alone and not with the code that made it. The tools are left out of the
prompt: the model then knows nothing of them, which is the hardest case for the constraint and the fastest to run.
--random takes a tiny model with random weights instead. With --least each budget is drawn between it and --max-tokens;
a budget that is too small for any call is refused at the door and counted so.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jsonschema

from edge import ChatRequest, ChatTemplate, ContextOptions, SamplingOptions, Tool, ToolCall
from edge.engine.engine import Engine
from edge.errors import RequestError, ToolsError, UnsupportedSchema
from edge.grammar import compile_tool, parse_tools
from edge.models.store import resolve
from tests.tiny_gguf import TinyShape, write_gguf

# Names tools and calls, so that it counts as one for them, and writes none of them.
SHORT = ChatTemplate(
    "{% if tools %}{# <tool_call> #}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n",
    "benchmark",
)


def read_tools(files: list[Path]) -> tuple[list[Tool], Counter[str]]:
    """Distinct tools that the grammar takes, and a count of what happened to the others."""
    tools: dict[str, Tool] = {}
    refused: Counter[str] = Counter()
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for raw in row.get("tools") or [row["tool"]]:
                try:
                    [tool] = parse_tools([raw])
                    compile_tool(tool)
                    tools[json.dumps([tool.name, tool.parameters])] = tool
                except UnsupportedSchema as exc:
                    refused[f"unsupported {exc.keyword}"] += 1
                except ToolsError as exc:
                    refused[type(exc).__name__] += 1
    return list(tools.values()), refused


def first_call(engine: Engine, request: ChatRequest) -> ToolCall | None:
    """The answer's first call; what the model would say after it is not asked for."""
    for event in engine.stream(request):
        if isinstance(event, ToolCall):
            return event
    return None


def fault(call: ToolCall, tools: dict[str, Tool]) -> str | None:
    """What is wrong with a call, judged without the program's own code."""
    if call.name not in tools:
        return "unknown tool"
    schema = tools[call.name].parameters
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    error = next(validator(schema).iter_errors(json.loads(json.dumps(call.arguments, allow_nan=False))), None)
    return None if error is None else f"breaks {error.validator}"


def model_path(args: argparse.Namespace) -> Path:
    """The file of --model, or a fresh random one."""
    if not args.random:
        return resolve(args.model, lambda line: print(line, file=sys.stderr)).path
    folder = Path(tempfile.mkdtemp(prefix="random-model-"))
    return write_gguf(folder / "random.gguf", TinyShape(args.random, n_vocab=4096))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, action="append", required=True)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--least", type=int, help="draw the budgets from here to --max-tokens")
    parser.add_argument(
        "--random", choices=("llama", "qwen3", "qwen35"), help="a tiny model with random weights"
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tools, refused = read_tools(args.tools)
    rng = random.Random(args.seed)
    counts: Counter[str] = Counter()
    tokens = refusals = 0
    started = time.perf_counter()
    path = model_path(args)
    with Engine(
        path, chat_template=SHORT, context=ContextOptions(n_ctx=1024, n_threads=args.threads)
    ) as engine:
        while counts["answers"] < args.calls if args.least else counts["calls"] < args.calls:
            chosen = {tool.name: tool for tool in rng.sample(tools, rng.randint(1, 8))}
            seed = rng.randrange(1 << 31)
            request = ChatRequest(
                messages=[{"role": "user", "content": "Go on."}],
                tools=list(chosen.values()),
                tool_choice="required",
                max_tokens=rng.randint(args.least, args.max_tokens) if args.least else args.max_tokens,
                sampling=SamplingOptions(temperature=args.temperature, seed=seed),
            )
            counts["answers"] += 1
            try:
                call = first_call(engine, request)
            except RequestError:
                counts["refused_at_the_door"] += 1
                continue
            assert engine.last_generation is not None
            tokens += len(engine.last_generation.tokens)
            refusals += engine.last_generation.n_refused
            if call is None:
                counts["withdrawn"] += 1
                continue
            counts["calls"] += 1
            problem = fault(call, chosen)
            if problem:
                counts["invalid"] += 1
                print(f"seed {seed}: {problem}: {call}", file=sys.stderr)
            if counts["answers"] % 50 == 0:
                print(f"{counts['calls']} calls in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(
        json.dumps(
            {
                "tools": len(tools),
                "tools_refused": dict(refused),
                "temperature": args.temperature,
                "max_tokens": args.max_tokens,
                **{
                    key: counts[key]
                    for key in ("answers", "calls", "invalid", "withdrawn", "refused_at_the_door")
                },
                "tokens": tokens,
                "choices_refused_by_grammar": refusals,
                "seconds": round(time.perf_counter() - started, 1),
            },
            indent=2,
        )
    )
    return 1 if counts["invalid"] else 0


if __name__ == "__main__":
    sys.exit(main())
