"""What do the grammar and the engine cost per token? Ratios within one run, same model, same tokens.

    python -m benchmarks.decode [--model demo] [--vocab 248320] [--repeat 5] [--temperature 0]

Three ways to decode the same tokens, taken in turn and repeated; the medians are compared:
  bare         llama_decode and a greedy sampler in the shortest loop that Python can write
  free         this engine without a grammar
  constrained  this engine with the tool grammar, refusals and masks included
For `free` and `constrained` the model writes calls; `free` replays the tokens of `constrained`, sampling as much.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.alone import run_alone
from benchmarks.valid_calls import SHORT
from edge import ContextOptions, SamplingOptions, Tool
from edge.engine.context import Context
from edge.engine.engine import Engine
from edge.engine.generation import Generation, GenerationPlan
from edge.engine.model import Model
from edge.engine.native import compute, llama
from edge.engine.request import CompletionRequest
from edge.engine.sampling import GrammarCache, SamplerChain
from edge.engine.slot import Slot
from edge.grammar import compile_tool
from edge.models.store import resolve
from tests.tiny_gguf import TinyShape, write_gguf

NOTE = Tool(
    "save_note",
    {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "priority": {"type": "string", "enum": ["low", "normal", "high"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "pinned": {"type": "boolean"},
            "body": {"type": "string"},
        },
        "required": ["title", "priority", "pinned", "body"],
        "additionalProperties": False,
    },
    "Save a note",
)
WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "Current weather",
)
TIME = Tool("get_time", {"type": "object", "properties": {}, "additionalProperties": False}, "Current time")
PROMPT = "Save a note about how to make a good pot of tea, with all the steps."


class Replay(SamplerChain):
    """Samples like its base and then says what it was told to."""

    script: Iterator[int]

    def sample(self, slot: Slot) -> int:
        super().sample(slot)
        return next(self.script)


def generate(
    engine: Engine, chain: SamplerChain, grammars: GrammarCache, *, grammar: bool, n: int
) -> tuple[Generation, float]:
    """One call of at most n tokens, and seconds per sampled token; the prompt is not counted."""
    vocab = engine.model.vocab
    plan = GenerationPlan(
        prompt=vocab.tokenize(f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"),
        forced=vocab.tokenize("<tool_call>"),
        tools=[compile_tool(t) for t in (NOTE, WEATHER, TIME)],
        max_tokens=n,
        max_calls=1,
        use_grammar=grammar,
        force_text=False,
    )
    slot = engine.context.slots[0]
    slot.clear()
    generation = Generation(plan, slot, chain, grammars)
    reply = compute(lambda: run_alone(generation, slot))
    return generation, reply.timings.decode_s / (len(generation.tokens) - len(plan.forced))


def bare_loop(path: Path, options: ContextOptions, prompt: list[int], n: int) -> float:
    """Seconds per token of llama_decode + greedy sampler, on a context of its own."""
    lib, model = llama(), Model(path)
    context = Context(model, options)
    slot, pointer = context.slots[0], context.pointer
    slot.decode(prompt)
    sampler = lib.llama_sampler_init_greedy()
    batch = lib.llama_batch_init(1, 0, 1)
    batch.n_tokens, batch.n_seq_id[0], batch.seq_id[0][0], batch.logits[0] = 1, 1, 0, 1
    decode, sample = lib.llama_decode, lib.llama_sampler_sample
    position = len(prompt)
    started = time.perf_counter()
    for _ in range(n):
        batch.token[0], batch.pos[0] = sample(sampler, pointer, -1), position
        decode(pointer, batch)
        position += 1
    seconds = time.perf_counter() - started
    lib.llama_batch_free(batch)
    lib.llama_sampler_free(sampler)
    context.close()
    model.close()
    return seconds / n


def engine_loop(path: Path, options: ContextOptions, prompt: list[int], n: int) -> float:
    """Seconds per token of the engine on free text, scheduler and hand-over of the events included."""
    greedy = SamplingOptions(temperature=0.0)
    with Engine(path, chat_template=SHORT, context=options) as engine:
        reply = engine.chat(CompletionRequest(prompt=prompt, max_tokens=n, sampling=greedy))
    return reply.timings.decode_s / reply.usage.completion_tokens


def measure(path: Path, args: argparse.Namespace) -> dict[str, object]:
    """All ratios for one model."""
    options = ContextOptions(n_ctx=1024, n_threads=args.threads)
    with Engine(path, chat_template=SHORT, context=options) as engine:
        vocab = engine.model.vocab
        grammars = GrammarCache(vocab)
        grammars.prepare()
        _ = grammars.tree  # built once per process, beside the first prefill; not a cost of a token
        sampling = SamplingOptions(temperature=args.temperature, seed=1)
        free, constrained = [], []
        generation = None
        for _ in range(args.repeat):
            chain = SamplerChain(sampling, vocab)
            generation, seconds = generate(engine, chain, grammars, grammar=True, n=args.tokens)
            constrained.append(seconds)
            chain.close()
            sampled = generation.tokens[len(generation.plan.forced) :]
            replay = Replay(sampling, vocab)
            replay.script = iter(sampled)
            n_tokens = len(generation.tokens)  # a call that runs out of budget is given up early
            again, seconds = generate(engine, replay, grammars, grammar=False, n=n_tokens)
            free.append(seconds)
            replay.close()
            assert again.tokens == generation.tokens, "the same tokens, or the comparison is void"
        prompt = vocab.tokenize("<|im_start|>user\nTell me a long story.<|im_end|>\n<|im_start|>assistant\n")
        bare, ours = [], []
        for _ in range(args.repeat):
            # One after the other and never both at hand: see `compute`.
            ours.append(engine_loop(path, options, prompt, args.tokens))
            bare.append(compute(lambda: bare_loop(path, options, prompt, args.tokens)))
        grammars.close()
        assert generation is not None
        return {
            "model": engine.facts["name"],
            "n_vocab": vocab.n_tokens,
            "n_threads": engine.context.plan.n_threads,
            "tokens": args.tokens,
            "temperature": args.temperature,
            "refused_per_call": generation.n_refused,
            "descended_per_call": generation.n_descended,
            "tokens_per_call": len(sampled),
            "ms_per_token": {
                "bare": ms(bare), "engine": ms(ours), "free": ms(free), "constrained": ms(constrained)
            },
            "engine_vs_bare": ratio(bare, ours),
            "constrained_vs_free": ratio(free, constrained),
        }  # fmt: skip


def ms(values: list[float]) -> float:
    return round(1000 * statistics.median(values), 3)


def ratio(slow_is: list[float], ours: list[float]) -> float:
    """Speed of ours relative to the other; above 1 is faster."""
    return round(statistics.median(slow_is) / statistics.median(ours), 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--vocab", type=int, default=248_320, help="0 leaves the large vocabulary out")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    results = [measure(resolve(args.model, lambda line: print(line, file=sys.stderr)).path, args)]
    if args.vocab:
        with tempfile.TemporaryDirectory() as folder:
            # Wide enough that a step is not over before Python has looked at it: a real model's never is.
            shape = TinyShape(
                "qwen35", n_layer=4, n_embd=256, n_ff=768, head_dim=64, state_size=64, n_vocab=args.vocab
            )
            path = write_gguf(Path(folder) / "large-vocabulary.gguf", shape)
            results.append(measure(path, args))
    print(json.dumps({"machine": platform.processor() or platform.machine(), "results": results}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
