"""States on disk: bit-exact, bound to their model, and never handed to llama.cpp when anything is wrong with them."""

from __future__ import annotations

import os
import shutil
import threading
import time

import numpy as np
import pytest

from edge.chat.template import hermes_template
from edge.engine.context import Context, ContextOptions
from edge.engine.engine import Engine
from edge.engine.file_digest import FileDigest
from edge.engine.request import ChatRequest
from edge.engine.sampling import SamplerChain, SamplingOptions
from edge.engine.state_cache import StateCache, StateCacheOptions
from edge.errors import RequestError
from edge.types import Tool
from tests.engine.conftest import ARCHITECTURES
from tests.tiny_gguf import write_gguf

pytestmark = pytest.mark.model

PING = Tool("ping", {"type": "object", "properties": {}, "additionalProperties": False}, "Answers pong")
OPTIONS = ContextOptions(n_ctx=1024, n_threads=1)


@pytest.fixture(params=ARCHITECTURES)
def path(request, tiny_files):
    return tiny_files[request.param]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "states"


def open_engine(path, folder, **options):
    cache = StateCacheOptions(folder=folder, **options.pop("cache", {}))
    return Engine(path, chat_template=hermes_template(), context=OPTIONS, state_cache=cache, **options)


def ask(engine, text="hello", tools=(PING,)):
    sampling = SamplingOptions(temperature=0.0)
    messages = [{"role": "user", "content": text}]
    return engine.chat(ChatRequest(messages=messages, tools=tools, sampling=sampling, max_tokens=12))


def states(folder):
    return sorted(folder.glob("*.state"))


def first_process(path, folder):
    """Fills the cache; returns the answer that it gave."""
    with open_engine(path, folder) as engine:
        reply = ask(engine)
        assert (reply.usage.cached_tokens, engine.stats().state_cache_misses) == (0, 1)
    assert len(states(folder)) == 1
    return reply


def test_a_new_engine_starts_behind_the_tools_that_an_earlier_one_knew(path, folder):
    cold = first_process(path, folder)
    with open_engine(path, folder, n_parallel=2) as engine:
        warm = ask(engine)
        assert engine.stats().state_cache_hits == 1
        assert warm.usage.prompt_tokens - warm.usage.cached_tokens < 40  # only the question
        assert warm.content == cold.content
        other = ask(engine, "another question")
        assert other.usage.prompt_tokens - other.usage.cached_tokens < 50
        assert engine.stats().state_cache_hits == 1  # now it is in memory
    with open_engine(path, folder) as engine:
        assert ask(engine, tools=()).usage.cached_tokens == 0  # nothing was kept for these


def test_a_state_continues_bit_for_bit(path):
    from edge.engine.model import Model

    tokens, more = [(7 * i) % 250 for i in range(150)], [3, 1, 4]
    with Model(path) as model:
        first, second = Context(model, OPTIONS), Context(model, OPTIONS, n_parallel=3)
        chain = SamplerChain(SamplingOptions(), model.vocab)
        first.slots[0].decode(tokens)
        state = first.slots[0].state()
        first.slots[0].decode(more)
        expected = np.array(chain.logits(first.slots[0]))
        second.slots[0].decode([9, 9, 9])  # so that the cells are others
        assert second.slots[2].set_state(state, tokens)
        second.slots[2].decode(more)
        assert np.array_equal(np.array(chain.logits(second.slots[2])), expected)
        chain.close()
        first.close()
        second.close()


def damage(how, file, folder):
    raw = file.read_bytes()
    match how:
        case "cut":
            file.write_bytes(raw[: len(raw) // 2])
        case "empty":
            file.write_bytes(b"")
        case "header only":
            file.write_bytes(raw[:96])
        case "longer":
            file.write_bytes(raw + b"\0")
        case "a bit of the state":
            file.write_bytes(raw[:-100] + bytes([raw[-100] ^ 1]) + raw[-99:])
        case "a bit of the tokens":
            file.write_bytes(raw[:100] + bytes([raw[100] ^ 1]) + raw[101:])
        case "another version":
            file.write_bytes(raw[:8] + b"\x09" + raw[9:])
        case "foreign":
            file.write_bytes(os.urandom(len(raw)))
        case "a claim of 2**60 bytes":
            file.write_bytes(raw[:16] + (1 << 60).to_bytes(8, "little") + raw[24:])


@pytest.mark.parametrize(
    "how",
    [
        "cut",
        "empty",
        "header only",
        "longer",
        "a bit of the state",
        "a bit of the tokens",
        "another version",
        "foreign",
        "a claim of 2**60 bytes",
    ],
)
def test_a_damaged_file_is_removed_and_the_prompt_computed(tiny_files, folder, how):
    cold = first_process(tiny_files["qwen35"], folder)
    damage(how, states(folder)[0], folder)
    with open_engine(tiny_files["qwen35"], folder) as engine:
        reply = ask(engine)
        assert (reply.content, reply.usage.cached_tokens) == (cold.content, 0)
        assert (engine.stats().state_cache_hits, engine.stats().state_cache_misses) == (0, 1)
    assert len(states(folder)) == 1  # written anew
    with open_engine(tiny_files["qwen35"], folder) as engine:
        assert ask(engine).usage.cached_tokens > 0


def test_a_state_under_another_one_s_name_is_not_taken(tiny_files, folder):
    path = tiny_files["llama"]
    first_process(path, folder)
    mine = states(folder)[0]
    with open_engine(path, folder) as engine:
        ask(engine, tools=(Tool("pong", PING.parameters, "Answers ping"),))
    other = next(file for file in states(folder) if file != mine)
    shutil.copy(other, mine)
    with open_engine(path, folder) as engine:
        assert ask(engine).usage.cached_tokens == 0


def test_a_state_that_llama_cpp_refuses_is_removed(tiny_files, folder, monkeypatch):
    path = tiny_files["llama"]
    cold = first_process(path, folder)
    with open_engine(path, folder) as engine:
        monkeypatch.setattr(type(engine.context.slots[0]), "set_state", lambda slot, state, tokens: False)
        assert ask(engine).content == cold.content
        assert (engine.stats().state_cache_hits, engine.stats().state_cache_misses) == (0, 1)


def test_another_model_in_the_same_place_does_not_get_the_state(tmp_path, folder):
    path = write_gguf(tmp_path / "m.gguf", seed=1)
    first_process(path, folder)
    write_gguf(path, seed=2)
    with open_engine(path, folder) as engine:
        assert ask(engine).usage.cached_tokens == 0
    assert len(states(folder)) == 2


def test_a_copy_of_the_model_gets_the_state_once_its_digest_is_known(tmp_path, folder, tiny_files):
    first_process(tiny_files["llama"], folder)
    copy = shutil.copy(tiny_files["llama"], tmp_path / "copy.gguf")
    FileDigest(tmp_path / "copy.gguf", folder / "digests").compute()
    with open_engine(copy, folder) as engine:
        assert ask(engine).usage.cached_tokens > 0


def test_keys_and_values_held_in_another_way_have_their_own_state(tiny_files, folder):
    first_process(tiny_files["llama"], folder)
    cache = StateCacheOptions(folder=folder)
    other = ContextOptions(n_ctx=1024, n_threads=1, kv_type="f32")
    with Engine(
        tiny_files["llama"], chat_template=hermes_template(), context=other, state_cache=cache
    ) as engine:
        assert ask(engine).usage.cached_tokens == 0
    assert len(states(folder)) == 2


@pytest.fixture
def cache_of(tiny_files, folder):
    """Makes caches of one model without an engine, as other processes would."""
    from edge.engine.context import resolve
    from edge.engine.gguf_header import read_gguf_header

    plan = resolve(OPTIONS, read_gguf_header(tiny_files["llama"]))
    made = []

    def make(**options):
        made.append(StateCache(StateCacheOptions(folder=folder, **options), tiny_files["llama"], plan))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def state_of(n_bytes, value=0):
    import ctypes

    return (ctypes.c_uint8 * n_bytes)(*[value] * 8)


def test_the_state_used_longest_ago_goes_when_there_are_too_many_bytes(cache_of, folder):
    prompts = [[i] * 200 for i in range(4)]
    for prompt in prompts:
        cache = cache_of(max_bytes=1 << 20)
        cache.save(prompt, state_of(300_000))
        cache.close()
        time.sleep(0.01)
        assert cache.load(prompts[0]) is not None  # used again each time
        assert sum(file.stat().st_size for file in states(folder)) <= 1 << 20
    assert [cache.load(prompt) is not None for prompt in prompts] == [True, False, True, True]
    assert not list(folder.glob("*.part"))


def test_a_state_larger_than_the_cache_or_shorter_than_worth_it_is_not_kept(cache_of, folder):
    cache = cache_of(max_bytes=1 << 20, min_tokens=100)
    cache.save([1] * 200, state_of(2 << 20))
    cache.close()
    assert not states(folder)
    assert not cache.wants([1] * 99)
    assert cache.wants([1] * 100)
    with pytest.raises(RequestError, match="1 MiB"):
        StateCacheOptions(folder=folder, max_bytes=1000)


def test_two_writers_and_a_reader_do_not_disturb_each_other(cache_of, folder):
    prompts = [[i] * 150 for i in range(6)]
    problems = []

    def work(seed):
        for n in range(30):
            i = (n + seed) % len(prompts)
            cache = cache_of(max_bytes=1 << 20)
            cache.save(prompts[i], state_of(250_000, i))
            cache.close()
            state = cache.load(prompts[(i + 1) % 6])
            if state is not None and state[0] != (i + 1) % 6:
                problems.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert not list(folder.glob("*.part"))
    assert sum(file.stat().st_size for file in states(folder)) <= 2 << 20


def test_a_file_that_a_dead_process_left_is_cleared_away(cache_of, folder):
    folder.mkdir()
    left = folder / "x.part"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 7200,) * 2)
    cache = cache_of()
    cache.save([1] * 200, state_of(1000))
    cache.close()
    assert not left.exists()


def test_a_cache_that_cannot_be_written_costs_nothing_but_itself(tiny_files, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("not a folder")
    with open_engine(tiny_files["llama"], blocked / "states") as engine:
        assert ask(engine).usage.completion_tokens > 0
        assert ask(engine).usage.completion_tokens > 0


def test_the_folder_is_the_user_s_alone(tiny_files, folder):
    first_process(tiny_files["llama"], folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert states(folder)[0].stat().st_mode & 0o077 == 0


def test_a_digest_is_computed_once_and_not_of_a_file_that_changes(tmp_path, monkeypatch):
    file = tmp_path / "m"
    file.write_bytes(b"weights")
    digest = FileDigest(file, tmp_path / "digests")
    assert digest.known() is None
    known = digest.compute()
    assert known == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"  # sha256sum's
    assert FileDigest(file, tmp_path / "digests").known() == known
    file.write_bytes(b"changed")
    assert FileDigest(file, tmp_path / "digests").known() is None
    late = FileDigest(file, tmp_path / "digests")
    file.write_bytes(b"again!!")
    assert late.compute() is None
