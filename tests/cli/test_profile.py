from __future__ import annotations

import json

import pytest

from tests.profiles.recordings import NAMES, unpack
from tests.tiny_gguf import TinyShape, write_gguf

pytestmark = pytest.mark.model


@pytest.fixture
def recorded(tmp_path):
    return lambda name, changes=None: unpack(name, tmp_path / "root", changes)


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_device_is_shown_and_gets_a_plan(cli, recorded, name):
    code, out, err = cli("profile", "--root", recorded(name), "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    chosen = [row for row in document["candidates"] if row["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["fits"]
    plan = document["plan"]
    assert plan["model"] == chosen[0]["model"]
    assert plan["memory"]["free_bytes"] >= 0
    assert document["device"]["memory.total_bytes"]["source"] == "/proc/meminfo MemTotal"
    for row in document["candidates"]:
        assert row["fits"] == (row["why_not"] == "")


def test_people_get_the_device_a_bar_the_reasons_and_all_candidates(cli, recorded):
    code, out, err = cli("profile", "--root", recorded("orin-nano-8gb-super"))
    assert (code, err) == (0, "")
    assert "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super" in out
    assert "Memory of smol-tools-4b-16k Q4_K_M, n_ctx 16384" in out
    bar = next(line for line in out.splitlines() if line.lstrip().startswith("["))
    assert bar.count("W") > bar.count("K") > 0
    for term in ("weights", "kv_cache", "recurrent_state", "compute", "headroom", "free"):
        assert any(line.split()[1:2] == [term] for line in out.splitlines()), term
    assert sum(line.startswith("> ") for line in out.splitlines()) == 1
    assert "note: this is a Jetson, but llama.cpp was built without CUDA" in out


def test_the_terms_add_up_to_what_is_available(cli, recorded):
    plan = json.loads(cli("profile", "--root", recorded("laptop-16gb"), "--json")[1])["plan"]
    memory = plan["memory"]
    terms = (
        "weights",
        "repacked",
        "kv_cache",
        "recurrent_state",
        "compute",
        "output",
        "state_cache",
        "runtime",
    )
    assert sum(memory[term] for term in terms) == memory["total_bytes"]
    used = memory["total_bytes"] + memory["headroom_bytes"] + memory["free_bytes"]
    assert used == memory["available_bytes"]


def test_nothing_fits_shows_the_candidates_and_ends_with_the_reason(cli, recorded):
    root = recorded("pi4-4gb")
    code, out, err = cli("profile", "--root", root, "--model", "smol-tools-4b", "--json")
    document = json.loads(out)
    assert code == 1
    assert err == f"error: {document['refusal']}\n"
    assert document["plan"] is None
    assert all(row["why_not"].endswith(" MiB too much") for row in document["candidates"])
    assert "Candidates" in cli("profile", "--root", root, "--model", "smol-tools-4b")[1]


def test_a_file_is_planned_from_its_header_and_checked_against_llama_cpp(cli, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", TinyShape(architecture="qwen35", head_dim=32))
    document = json.loads(cli("profile", "--model", path, "--check", "--parallel", "3", "--json")[1])
    reserved, planned = document["llama_cpp_reserves"], document["plan"]["memory"]
    assert reserved["weights"] == planned["weights"]
    for term in ("kv_cache", "recurrent_state", "output"):
        assert planned[term] == pytest.approx(reserved[term], abs=0.01 * 2**20)
    assert document["plan"]["n_ctx"] == 1024


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--root", "/no/such"], "/no/such is not a folder; --root takes one with proc, sys and etc in it"),
        (["--model", "none.gguf"], "there is no file none.gguf"),
        (["--model", "no-such-model"], "no-such-model"),
        (
            ["--model", "nobody/nothing"],
            "nobody/nothing is not on this machine, so its size is unknown; pull it first",
        ),
        (["--model", "demo", "--n-ctx", "0"], "n_ctx is 0; this model allows 1 to 8192"),
        (["--model", "demo", "--kv-type", "q4"], "kv_type is 'q4'; allowed are f32, f16, q8_0"),
        (["--model", "demo:Q9_Z"], "there is no quantization 'Q9_Z' of it; there is Q8_0, Q4_K_M, BF16"),
        (["--parallel", "0"], "parallel is 0; allowed is 1 to 64"),
        (["--model", "smol-tools-4b", "--check"], "--check needs the file of smol-tools-4b:Q"),
        (["--device-profile", "none.toml"], "the device profile none.toml cannot be read: No such file"),
    ],
)
def test_a_bad_option_is_one_line(cli, arguments, found):
    code, _, err = cli("profile", *arguments)
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert found in err


def test_run_takes_its_plan_from_the_device_profile(cli, tiny_model, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('[run]\nn_ctx = [512]\nkv_types = ["f32"]\nn_ubatch = [32]\nthreads = 1\n')
    options = ("--model", tiny_model, "--device-profile", mine, "--max-tokens", "4", "--json")
    plan = json.loads(cli("run", "hi", *options)[1])["plan"]
    assert (plan["n_ctx"], plan["kv_type_k"], plan["n_ubatch"], plan["n_threads"]) == (512, "f32", 32, 1)
    pinned = json.loads(cli("run", "hi", *options, "--n-ctx", "300")[1])["plan"]
    assert pinned["n_ctx"] == 300
    assert {step["what"]: step["why"] for step in pinned["steps"]}["n_ctx"] == "as asked"


def test_run_refuses_what_does_not_fit_before_it_loads(cli, tiny_model, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("[memory]\nheadroom_mib = 1000000\n")
    code, out, err = cli("run", "hi", "--model", tiny_model, "--device-profile", mine)
    assert (code, out) == (1, "")
    assert err.startswith("error: no model fits: the smallest, ")
    assert err.count("\n") == 1
