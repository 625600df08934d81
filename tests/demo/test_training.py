"""The trainer against transformers' own forward pass, on a tiny model. Needs the extra `demo-train`."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from demo.attention import attend  # noqa: E402
from demo.average import main as average_command  # noqa: E402
from demo.loss import laid_out, pack_loss, targets  # noqa: E402
from demo.packs import Branch, Pack, read_packs  # noqa: E402
from demo.settings import Settings, TrainError  # noqa: E402
from demo.train import main, train  # noqa: E402
from demo.trainer import Trainer, adapted_model, evened, share  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Two tiny layers of a Llama with grouped heads, and a tokenizer of bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def word(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9)))


def group(rng: random.Random) -> dict:
    tool = {"name": word(rng), "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    dialogs = []
    for _ in range(rng.randint(1, 3)):
        value = word(rng)
        call = {"type": "function", "function": {"name": tool["name"], "arguments": {"a": value}}}
        messages = [
            {"role": "user", "content": f"do {value}"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        if rng.random() < 0.5:
            answer = {"role": "assistant", "content": f"{word(rng)} is done"}
            messages += [{"role": "tool", "content": word(rng)}, answer]
        dialogs.append({"scenario": "single_tool", "messages": messages})
    return {"system": word(rng), "tools": [{"type": "function", "function": tool}], "dialogs": dialogs}


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    """16 groups to validate on and 12 to train on."""
    rng = random.Random(5)
    path = tmp_path_factory.mktemp("examples") / "examples.jsonl"
    path.write_text("".join(json.dumps(group(rng)) + "\n" for _ in range(28)), encoding="utf-8")
    return path


@pytest.fixture
def settings(base, examples, tmp_path):
    def settings(out: str = "run", **changed) -> Settings:
        given = {"minutes": 1e9, "processes": 1, "packs_a_step": 4, "warmup_steps": 2, "rank": 4, "alpha": 8}
        return Settings(
            base=str(base),
            examples=str(examples),
            out=str(tmp_path / out),
            first_layer=1,
            **{**given, **changed},
        )

    return settings


@pytest.fixture
def packs(settings, base) -> list[Pack]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    return list(read_packs(Path(settings().examples), tokenizer, max_tokens=1500))


@pytest.fixture
def alone(tmp_path):
    """A group of one process, in this one."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def with_moved_adapter(settings: Settings):
    """An adapter fresh from peft does nothing: B is zero."""
    torch.manual_seed(1)
    model = adapted_model(settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def weights_of(folder: str) -> dict:
    from safetensors.torch import load_file

    return load_file(Path(folder) / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize(("n_prefix", "lengths"), [(7, [3, 5, 1]), (300, [20, 270]), (0, [4, 4]), (256, [1])])
def test_attend_is_the_attention_of_each_dialogue_alone(n_prefix, lengths):
    torch.manual_seed(0)
    n_tokens = n_prefix + sum(lengths)
    query = torch.randn(6, n_tokens, 8, dtype=torch.float64)
    key, value = torch.randn(2, 2, n_tokens, 8, dtype=torch.float64)
    branches, start = [], n_prefix
    for length in lengths:
        branches.append((start, start + length))
        start += length

    found = attend(query, key, value, n_prefix, branches)

    for start, stop in branches:
        rows = [*range(n_prefix), *range(start, stop)]
        alone = torch.nn.functional.scaled_dot_product_attention(
            query[:, rows],
            key[:, rows].repeat_interleave(3, 0),
            value[:, rows].repeat_interleave(3, 0),
            is_causal=True,
        )
        torch.testing.assert_close(found[rows], alone.transpose(0, 1))


def test_a_packs_loss_and_gradients_are_those_of_its_dialogues_one_by_one(settings, packs, base):
    pack = max(packs, key=lambda pack: len(pack.branches))
    assert len(pack.branches) == 3
    call_ids = packs_call_ids(base)
    learned = targets(pack, call_ids, text_weight=0.5)
    model = with_moved_adapter(settings())
    loss, weight = pack_loss(model, pack, learned, CPU)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    plain = with_moved_adapter(settings())
    plain.base_model.model.set_attn_implementation("eager")
    total = torch.tensor(0.0)
    n_weight = 0.0
    for branch in pack.branches:
        ids = torch.tensor(pack.prefix + branch.ids)
        logits = plain(input_ids=ids[None]).logits[0].float()
        for place in range(len(branch.ids)):
            if branch.is_target[place]:
                at = len(pack.prefix) + place
                own = weight_by_hand(branch, place, call_ids)
                total = total + own * torch.nn.functional.cross_entropy(logits[at - 1], ids[at])
                n_weight += own
    total.backward()

    assert weight == pytest.approx(n_weight)
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-4)
    assert gradients
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().max() > 1e-4, name
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)


def packs_call_ids(base: Path) -> list[int]:
    from tokenizers import Tokenizer

    return (
        Tokenizer.from_file(str(base / "tokenizer.json")).encode("<tool_call>", add_special_tokens=False).ids
    )


def weight_by_hand(branch: Branch, place: int, call_ids: list[int]) -> float:
    start = place
    while start and branch.is_target[start - 1]:
        start -= 1
    is_call = list(branch.ids[start : start + len(call_ids)]) == call_ids
    if place == start or branch.is_name[place]:
        return 4.0
    return 1.0 if is_call or place - start < 3 else 0.5


def test_positions_go_on_from_the_beginnings_end_in_every_branch():
    branch = Branch((7, 8), (False, True), (False, False))
    layout = laid_out(Pack((1, 2, 3), (branch, branch)))
    assert layout.ids == (1, 2, 3, 7, 8, 7, 8)
    assert layout.positions == (0, 1, 2, 3, 4, 3, 4)
    assert layout.branches == [(3, 5), (5, 7)]


def test_layers_below_the_first_and_the_base_stay_as_they_are(settings):
    model = adapted_model(settings())
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name and ".layers.1." in name for name in trained)


def test_a_run_that_was_cut_off_ends_as_one_without_a_break(settings, alone):
    whole, broken = settings("whole"), settings("broken")
    for run in (whole, broken):
        Path(run.out).mkdir()
    torch.manual_seed(1)
    Trainer(0, whole).train()
    torch.manual_seed(1)
    first = Trainer(0, broken)
    assert first.n_steps == 3
    first.advance(0.0)
    first.save()
    first.advance(1 / 3)  # is lost: nobody saved it
    torch.manual_seed(99)
    Trainer(0, broken).train()

    expected, found = weights_of(whole.out), weights_of(broken.out)
    assert expected.keys() == found.keys()
    assert any(tensor.abs().max() > 0 for name, tensor in found.items() if "lora_B" in name)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert [record["step"] for record in log_of(broken)] == [1, 2, 2, 3, 3]


def test_two_processes_do_what_one_does(settings):
    # One step on all packs: how they are ordered depends on the number of processes.
    states = []
    for processes in (1, 2):
        run = settings(f"run{processes}", processes=processes, packs_a_step=12)
        train(run)
        states.append(torch.load(Path(run.out) / "checkpoint.pt", weights_only=True))
        assert [record["step"] for record in log_of(run)] == [1, 1]
    one, two = (state["optimizer"]["state"] for state in states)
    assert any(moments["exp_avg"].abs().max() > 1e-4 for moments in one.values())
    for number, moments in one.items():
        torch.testing.assert_close(two[number]["exp_avg"], moments["exp_avg"], rtol=1e-3, atol=1e-7)


def test_a_run_takes_over_from_another_on_other_examples(settings, alone, tmp_path, examples):
    before = settings("before")
    Path(before.out).mkdir()
    Trainer(0, before).train()
    other = tmp_path / "other.jsonl"
    other.write_text("".join(reversed(examples.read_text().splitlines(keepends=True))))
    after = Settings(**{**vars_of(settings("after", continues=before.out)), "examples": str(other)})
    Path(after.out).mkdir()
    Trainer(0, after).train()
    assert [record["step"] for record in log_of(after)] == [4, 5, 6, 6]
    # Its schedule is its own.
    first, second = ([r["learning_rate"] for r in log_of(run) if "loss" in r] for run in (before, after))
    assert second == pytest.approx(first, rel=1e-3)
    assert len(set(second)) == 3
    assert not torch.equal(*(next(iter(weights_of(run.out).values())) for run in (before, after)))


def test_a_run_begins_with_the_weights_of_an_adapter(settings, alone):
    before = settings("before")
    Path(before.out).mkdir()
    Trainer(0, before).train()
    adapter = Path(before.out) / "adapter"
    after = settings("after", continues=str(adapter), minutes=1e-9)
    Path(after.out).mkdir()
    Trainer(0, after).train()
    assert [record["step"] for record in log_of(after)] == [0]
    expected, found = weights_of(before.out), weights_of(after.out)
    assert any(tensor.abs().max() > 0 for name, tensor in found.items() if "lora_B" in name)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    Path(after.out, "checkpoint.pt").unlink()
    with pytest.raises(TrainError, match="rank 4, not 5; --continues takes only what has the same"):
        Trainer(0, settings("after", continues=str(adapter), rank=5))
    (adapter / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(TrainError, match="holds no adapter of this model that can be read"):
        Trainer(0, settings("after", continues=str(adapter)))


def test_the_mean_of_two_adapters_lies_between_them(settings, alone, tmp_path, capsys):
    for out, steps in (("before", 1e-9), ("after", 1e9)):
        run = settings(out, minutes=steps)
        Path(run.out).mkdir()
        torch.manual_seed(1)
        Trainer(0, run).train()
    first, second = (tmp_path / out / "adapter" for out in ("before", "after"))
    assert average_command([str(first), str(second), "--out", str(tmp_path / "mean" / "adapter")]) == 0
    before, after, mean = (weights_of(str(tmp_path / out)) for out in ("before", "after", "mean"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name, tensor in mean.items():
        torch.testing.assert_close(
            tensor.float(), (before[name].float() + after[name].float()) / 2, rtol=8e-3, atol=0
        )
        assert tensor.dtype == before[name].dtype == torch.bfloat16
    before_config, config = (
        json.loads((tmp_path / out / "adapter/adapter_config.json").read_text()) for out in ("before", "mean")
    )
    assert config == before_config
    three = [str(first), str(second), str(second)]
    assert average_command([*three, "--out", str(tmp_path / "three" / "adapter")]) == 0
    for name, tensor in weights_of(str(tmp_path / "three")).items():
        torch.testing.assert_close(
            tensor.float(), (before[name].float() + 2 * after[name].float()) / 3, rtol=8e-3, atol=1e-7
        )
    own = str(tmp_path / "mean" / "adapter")
    assert average_command([own, str(first), "--out", own]) == 0
    for name, tensor in weights_of(str(tmp_path / "mean")).items():
        torch.testing.assert_close(
            tensor.float(), (mean[name].float() + before[name].float()) / 2, rtol=8e-3, atol=1e-7
        )
    assert sorted(path.name for path in Path(own).iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert average_command([str(first), "--out", str(tmp_path / "no")]) == 1
    assert "a mean takes at least two adapters" in capsys.readouterr().err
    assert average_command([str(first), str(tmp_path), "--out", str(tmp_path / "no")]) == 1
    assert f"{tmp_path} holds no adapter of this model that can be read" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert average_command([str(first), str(second), "--out", str(tmp_path / "file")]) == 1
    assert f"{tmp_path / 'file'} is a file; --out names a folder" in capsys.readouterr().err
    (second / "adapter_config.json").write_text(json.dumps({**config, "r": 5}))
    assert average_command([str(first), str(second), "--out", str(tmp_path / "no")]) == 1
    assert "adapters of different forms" in capsys.readouterr().err
    (second / "adapter_config.json").write_text("[]")
    assert average_command([str(first), str(second), "--out", str(tmp_path / "no")]) == 1
    assert "holds a list, not an object; name the adapter/ of a run" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_the_loss_is_measured_on_other_examples_where_those_are_named(settings, alone, examples, tmp_path):
    lines = examples.read_text().splitlines(keepends=True)
    trained_on, apart = tmp_path / "trained_on.jsonl", tmp_path / "apart.jsonl"
    trained_on.write_text("".join(lines[:20]))
    apart.write_text("".join(reversed(lines)))
    found = {}
    for validation in ("", str(apart), str(examples)):
        run = settings(f"run{len(found)}", validation=validation, minutes=1e-9)
        run = Settings(**{**vars_of(run), "examples": str(trained_on)})
        Path(run.out).mkdir()
        trainer = Trainer(0, run)
        trainer.train()
        found[validation] = (trainer.n_steps, log_of(run)[-1]["validation_loss"])
    # Of 20 groups 16 are kept back where nothing else is named.
    assert [n_steps for n_steps, _ in found.values()] == [1, 5, 5]
    assert found[str(examples)][1] == found[""][1] != found[str(apart)][1]


def log_of(settings: Settings) -> list[dict]:
    return [json.loads(line) for line in (Path(settings.out) / "log.jsonl").read_text().splitlines()]


def vars_of(settings: Settings) -> dict:
    from dataclasses import asdict

    return asdict(settings)


def test_a_time_limit_ends_the_run(settings, alone):
    run = settings("short", minutes=1e-9)
    Path(run.out).mkdir()
    Trainer(0, run).train()
    assert len(log_of(run)) == 1
    assert weights_of(run.out)


def test_a_checkpoint_of_other_settings_is_refused(settings, alone):
    run = settings("run")
    Path(run.out).mkdir()
    Trainer(0, run).save()
    with pytest.raises(TrainError, match="seed 7, not 8"):
        Trainer(0, settings("run", seed=8))
    with pytest.raises(TrainError, match="rank 4, not 5"):
        Trainer(0, settings("next", continues=run.out, rank=5))


def test_the_adapters_config_names_the_model_and_no_folder(settings, alone):
    run = settings("run", minutes=1e-9)
    Path(run.out).mkdir()
    Trainer(0, run).train()
    config = json.loads((Path(run.out) / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert str(run.base) not in json.dumps(config)


def test_packs_are_shared_out_once_each_and_evenly(packs):
    for processes in (1, 2, 3):
        shares = [share(packs, rank, processes) for rank in range(processes)]
        assert sorted(p.n_tokens for part in shares for p in part) == sorted(p.n_tokens for p in packs)
        loads = [sum(p.n_tokens for p in part) for part in shares]
        assert max(loads) - min(loads) <= max(p.n_tokens for p in packs)


def test_evening_keeps_every_pack_once(settings, packs):
    ordered = evened(packs, settings(processes=2))
    assert sorted(map(id, ordered)) == sorted(map(id, packs))
    assert evened(packs, settings(processes=2)) == ordered


def test_the_command_says_in_one_line_what_is_missing(tmp_path, capsys):
    given = ["--base", str(tmp_path), "--examples", str(tmp_path / "e"), "--out", str(tmp_path / "run")]
    assert main(given) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "config.json is not there" in error
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_what_it_cannot_go_on_from(base, examples, tmp_path, capsys):
    given = ["--base", str(base), "--examples", str(examples), "--out", str(tmp_path / "run")]
    assert main([*given, "--continues", str(tmp_path)]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path} holds neither checkpoint.pt nor adapter_model.safetensors" in error
    assert main([*given, "--validation", str(tmp_path / "v")]) == 1
    assert f"{tmp_path / 'v'} is not there" in capsys.readouterr().err
    assert main([*given, "--text-weight", "0"]) == 1
    assert "--text-weight must be above 0, got 0.0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*given, "--max-tokens", "9", "--processes", "1"]) == 1
    assert f"error: {examples} has 0 groups that fit into 9 tokens" in capsys.readouterr().err
    odd = tmp_path / "odd.jsonl"
    for line in ("nonsense", "[]", "{}"):
        odd.write_text(line + "\n")
        assert main([*given, "--validation", str(odd), "--processes", "1"]) == 1
        assert f"error: {odd} is not what demo.compose writes: " in capsys.readouterr().err
