"""Another model for a running service, and the way back."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys

import httpx
import pytest

from edge.chat.template import hermes_template
from edge.deploy.errors import DeployError
from edge.deploy.placing import Place, fetch, try_out
from edge.deploy.settings import Endpoint
from edge.deploy.update import MemoryConf, Switch, point
from tests.deploy import fake_service
from tests.deploy.fake_service import LookAlike
from tests.tiny_gguf import TinyShape, write_gguf

TEMPLATE = {"tokenizer.chat_template": hermes_template().source}


class LookAlikeService:
    """A restart of the look-alike; it can fail."""

    def __init__(self, look_alike):
        self.look_alike = look_alike

    def restart(self, change):
        change()
        look = self.look_alike
        look.serving = (look.models / "current").resolve()
        look.restarts.append(look.serving.name)
        if look.fault == "start":
            raise DeployError("systemctl start failed with exit code 1")

    def why_dead(self):
        return None


@pytest.fixture
def models(tmp_path):
    """Two files that are not looked into, the first one served."""
    folder = tmp_path / "state" / "models"
    folder.mkdir(parents=True)
    (folder / "old.gguf").write_bytes(b"old model")
    (folder / "new.gguf").write_bytes(b"the new model")
    point(folder / "current", folder / "old.gguf")
    return folder


@pytest.fixture
def switching(models):
    """A switch over the look-alike, whose faults are given by file name."""
    opened = []

    def make(bad=None, **more):
        look = LookAlike(models, bad or {})
        opened.append(look)
        told = []
        switch = Switch(
            models=models, service=LookAlikeService(look), endpoint=Endpoint(look.url, "secret"),
            timeout_s=0.5, tell=told.append, **more,
        )  # fmt: skip
        switch_and_look = (switch, look, told)
        return switch_and_look

    yield make
    for look in opened:
        look.close()


def test_a_good_model_is_served_and_the_old_one_remembered(switching, models):
    switch, look, _ = switching()
    switch.to(models / "new.gguf")
    assert look.restarts == ["new.gguf"]
    assert [str((models / name).readlink()) for name in ("current", "previous")] == ["new.gguf", "old.gguf"]
    assert look.key == "Bearer secret"
    assert sorted(p.name for p in models.iterdir()) == ["current", "new.gguf", "old.gguf", "previous"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("dead", "was not 200 within 0.5 s"),
        ("mute", "without the tool call"),
        ("start", "systemctl start failed"),
        ("other", "the service serves 'new' of 1 bytes, not the new file of 13"),
    ],
)
def test_a_model_that_is_not_well_is_taken_back(switching, models, fault, told):
    switch, look, lines = switching({"new.gguf": fault})
    with pytest.raises(DeployError) as caught:
        switch.to(models / "new.gguf")
    assert told in str(caught.value)
    assert str(caught.value).endswith("old.gguf serves again")
    assert "\n" not in str(caught.value)
    assert look.restarts == ["new.gguf", "old.gguf"]
    assert str((models / "current").readlink()) == "old.gguf"
    assert not (models / ".update-unfinished").exists()
    assert lines[-1] == "going back to old.gguf"


def test_when_the_old_model_does_not_come_back_either_that_is_said(switching, models):
    switch, _, _ = switching({"new.gguf": "dead", "old.gguf": "start"})
    with pytest.raises(DeployError, match=r"leads to old.gguf again, and the service is not well: systemctl"):
        switch.to(models / "new.gguf")
    assert (models / ".update-unfinished").read_text().endswith("old.gguf\n")


def test_an_interrupted_update_goes_back(switching, models):
    switch, _, _ = switching()

    def interrupted(line):
        if "trying" in line:
            raise KeyboardInterrupt

    switch = Switch(
        models=models, service=switch.service, endpoint=switch.endpoint, timeout_s=0.5, tell=interrupted
    )
    with pytest.raises(DeployError, match=r"it was interrupted; old\.gguf serves again"):
        switch.to(models / "new.gguf")
    assert str((models / "current").readlink()) == "old.gguf"


@pytest.mark.parametrize("fault", [None, "mute"])
def test_the_memory_limit_follows_the_model_and_comes_back_with_the_old_one(
    switching, models, tmp_path, fault
):
    conf, environment = tmp_path / "10-memory.conf", tmp_path / "environment"
    environment.write_text("SMOLTOOLS_EDGE_PORT=8080\n")
    conf.write_text("as it was\n")
    asked = []

    def limit_bytes(link):
        asked.append(str(link.readlink()))
        return 12345

    switch, _, _ = switching(
        {"new.gguf": fault} if fault else {}, memory=MemoryConf(conf, environment, limit_bytes)
    )
    if fault:
        with pytest.raises(DeployError):
            switch.to(models / "new.gguf")
        assert conf.read_text() == "as it was\n"
    else:
        switch.to(models / "new.gguf")
        # sha256 of the environment file, as install.sh computes it
        assert conf.read_text().splitlines() == [
            "# for new.gguf, environment 9ee4de285835",
            "# From the plan of `smoltools-edge profile`: the model, the headroom, the program.",
            "[Service]",
            "MemoryMax=12345",
        ]
    assert asked == ["new.gguf"]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "state" / "models").mkdir(parents=True, exist_ok=True)
    return Place.of(tmp_path / "state")


def test_a_file_that_is_no_model_is_refused_before_anything_changes(place, tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF but no more")
    with pytest.raises(DeployError, match=r"bad\.gguf"):
        fetch(str(bad), place, lambda line: None)
    assert list(place.models.iterdir()) == []


def test_a_model_that_makes_llama_cpp_abort_is_refused_by_the_trial(place):
    tokens = ["a", "b", "a"]
    bad = write_gguf(place.models / "twice.gguf", change={**TEMPLATE, "tokenizer.ggml.tokens": twice(tokens)})
    with pytest.raises(DeployError, match=r"a first tool call with twice\.gguf failed: .*abort"):
        try_out(bad, place, lambda line: None)


def test_the_limit_is_printed_for_the_installer(place, tmp_path, cli, monkeypatch):
    caller = tmp_path / "caller"
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(caller))
    point(place.models / "current", write_gguf(place.models / "tiny.gguf", change=TEMPLATE))
    settings = tmp_path / "environment"
    settings.write_text("# the service\nSMOLTOOLS_EDGE_N_CTX=256\n")
    code, out, err = cli(
        "update-model", "--print-limit", "--state-dir", place.state_dir, "--environment", settings
    )
    assert (code, err) == (0, "")
    head, _, section, limit = out.splitlines()
    digest = hashlib.sha256(settings.read_bytes()).hexdigest()[:12]
    assert (head, section) == (f"# for tiny.gguf, environment {digest}", "[Service]")
    assert int(limit.removeprefix("MemoryMax=")) > 100_000_000
    assert not caller.exists()  # root's own cache: what is done for the service is kept in its folder


def test_the_limit_s_plan_follows_the_service_s_settings(place, tmp_path, cli):
    point(place.models / "current", write_gguf(place.models / "tiny.gguf", change=TEMPLATE))
    settings = tmp_path / "environment"
    settings.write_text("SMOLTOOLS_EDGE_N_CTX=2048\n")
    code, out, err = cli(
        "update-model", "--print-limit", "--state-dir", place.state_dir, "--environment", settings
    )
    assert (code, out) == (1, "")
    assert "1 to 1024" in err
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("state_dir", "environment", "told"),
    [
        ("none", "none", "none cannot be used: No such file or directory; install the service first"),
        (
            "empty",
            "none",
            "empty/models cannot be used: No such file or directory; install the service first",
        ),
        ("empty", "empty", "the environment file empty cannot be read: Is a directory\n"),
    ],
)
def test_a_folder_that_holds_no_service_is_one_line(state_dir, environment, told, tmp_path, cli, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("update-model", "demo", "--state-dir", state_dir, "--environment", environment)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {told}")


def twice(_):
    """The tiny vocabulary with one word twice, which llama.cpp's loader asserts against."""
    from tests.tiny_gguf import vocabulary

    tokens, _ = vocabulary(TinyShape().n_vocab, 0)
    tokens[300] = tokens[301]
    return tokens


@pytest.mark.heavy
def test_a_broken_model_is_rolled_back_under_a_real_server(tmp_path, cli):
    """From a good model to one whose context the service's settings do not fit: it passes every check but living."""
    state = tmp_path / "state"
    (state / "models").mkdir(parents=True)
    old = write_gguf(state / "models" / "old.gguf", TinyShape(n_ctx=2048), change=TEMPLATE)
    point(state / "models" / "current", old)
    broken = write_gguf(tmp_path / "broken.gguf", TinyShape(n_ctx=1024), seed=1, change=TEMPLATE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = tmp_path / "environment"
    settings.write_text(f"# the service\nSMOLTOOLS_EDGE_PORT={port}\n")
    command = f"{sys.executable} {fake_service.__file__} {state} {port} --n-ctx 2048"
    try:
        subprocess.run(command.split(), check=True)
        code, out, err = cli(
            "update-model", broken, "--state-dir", state, "--environment", settings,
            "--restart-command", command, "--timeout", 30,
        )  # fmt: skip
        assert code == 1, err
        served = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).json()["data"][0]
    finally:
        fake_service.stop(state)
    assert out == ""
    assert "copying broken.gguf" in err
    assert err.splitlines()[-1].startswith("error: the update failed and was taken back: ")
    assert err.splitlines()[-1].endswith("old.gguf serves again")
    assert "n_ctx" in (state / "log").read_text()
    assert (served["id"], served["meta"]["size_bytes"]) == ("old", old.stat().st_size)
    assert str((state / "models" / "current").readlink()) == "old.gguf"
