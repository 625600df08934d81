"""What doctor says, of this machine, of builds and of recorded boards."""

from __future__ import annotations

import dataclasses
import json
from collections import namedtuple

import pytest

from edge.deploy import checks, settings
from edge.deploy.checks import (
    check_build,
    check_models,
    check_python,
    check_service,
    check_space,
    judge_service,
)
from edge.deploy.update import point
from edge.engine.build_facts import BuildFacts
from edge.engine.gpu import GpuDevice
from tests.profiles.recordings import unpack
from tests.tiny_gguf import write_gguf

CPU = BuildFacts("0.3.36", "linux_aarch64", None, ("NEON", "DOTPROD", "MATMUL_INT8"), ())
CUDA = dataclasses.replace(CPU, backend="cuda", gpus=(GpuDevice("Orin", 8 * 10**9, 5 * 10**9, True),))
A76, A78 = ("asimd", "asimddp"), ("asimd", "asimddp")


@pytest.mark.parametrize(
    ("build", "features", "is_jetson", "states", "told"),
    [
        (CUDA, A78, True, ("ok", "ok"), "Orin, 5.0 of 8.0 GB free"),
        (CPU, A78, True, ("warn", "warn"), "silently without CUDA"),
        (dataclasses.replace(CUDA, gpus=()), A78, True, ("ok", "fail"), "groups video and render"),
        (CPU, A76, False, ("ok", "ok"), "built without"),
        (
            dataclasses.replace(CPU, kernels=("NEON",)),
            A76,
            False,
            ("warn", "ok"),
            "without kernels for asimddp",
        ),
        (dataclasses.replace(CPU, kernels=("AVX",)), ("avx2",), False, ("warn", "ok"), "-DGGML_NATIVE=ON"),
        (
            dataclasses.replace(CPU, wheel_tag="manylinux_2_17_aarch64"),
            A76,
            False,
            ("ok", "ok"),
            "manylinux_2_17",
        ),
    ],
)
def test_a_build_is_held_against_the_machine(build, features, is_jetson, states, told):
    found = tuple(check_build(build, features, is_jetson=is_jetson))
    assert tuple(finding.state for finding in found) == states
    assert told in " ".join(f"{finding.found} {finding.advice}" for finding in found)


def test_an_old_python_fails():
    assert check_python((3, 10, 12)).state == "fail"
    assert check_python((3, 11, 0)).state == "ok"


def test_a_damaged_model_fails_and_whole_ones_are_counted(tmp_path):
    good = write_gguf(tmp_path / "good.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(good.read_bytes()[:-5000])
    bad, all_good = check_models({"mine:F32": good, "broken:F32": cut})
    assert (bad.state, bad.name, all_good.state) == ("fail", "model broken:F32", "ok")
    assert "smoltools-edge rm broken:F32" in bad.advice
    assert all_good.found == "1 whole: mine:F32"
    assert next(check_models({})).state == "warn"


@pytest.mark.parametrize(("free", "state"), [(0.4e9, "fail"), (3e9, "warn"), (9e9, "ok")])
def test_little_disk_space_is_told(tmp_path, monkeypatch, free, state):
    usage = namedtuple("usage", "free")(free)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: usage)
    assert check_space(tmp_path / "not" / "there").state == state


@pytest.mark.parametrize(
    ("shown", "state", "told"),
    [
        ("loaded active running success 0", "ok", "active (running)"),
        ("loaded active running success 3", "warn", "restarted 3 times"),
        ("loaded failed failed oom-kill 4", "fail", "oom-kill"),
        ("loaded activating auto-restart exit-code 1", "fail", "auto-restart"),
        ("loaded inactive dead success 0", "warn", "systemctl start"),
        ("not-found inactive dead success 0", "ok", "not installed"),
    ],
)
def test_the_service_is_judged_by_what_systemd_says(shown, state, told):
    names = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts")
    finding = judge_service(dict(zip(names, shown.split(), strict=True)))
    assert finding.state == state
    assert told in finding.found + finding.advice


def test_a_dead_link_and_a_broken_off_update_are_told(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "a.gguf").write_bytes(b"x")
    point(models / "current", models / "a.gguf")
    found = {finding.name: finding for finding in check_service(tmp_path)}
    assert (found["service model"].state, "update" in found) == ("ok", False)
    (models / ".update-unfinished").touch()
    (models / "a.gguf").unlink()
    found = {finding.name: finding.state for finding in check_service(tmp_path)}
    assert (found["service model"], found["update"]) == ("fail", "warn")


def test_a_recorded_board_makes_lines_and_its_failure_the_exit_code(cli, tmp_path):
    code, out, _ = cli("doctor", "--root", unpack("pi4-4gb", tmp_path / "pi"))
    assert code == 0
    lines = out.splitlines()
    assert (
        "warn  temperature      82.3 °C, slowed down from 80 °C -> cool it: a fan, a heat sink, a lower power mode"
        in lines
    )
    assert not any("python" in line for line in lines)
    worn = unpack("agx-orin-64gb", tmp_path / "agx", {"sys/block/mmcblk0/device/pre_eol_info": b"0x03"})
    code, out, _ = cli("doctor", "--root", worn, "--json")
    document = json.loads(out)
    assert (code, document["state"]) == (1, "fail")
    assert {"name", "state", "found", "advice", "hurts_now"} == set(document["checks"][0])


def test_a_root_that_is_no_folder_is_an_error(cli, tmp_path):
    code, out, err = cli("doctor", "--root", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert "is not a folder" in err


@pytest.mark.parametrize("serves", [True, False])
def test_a_board_that_only_serves_lacks_no_model(cli, tmp_path, monkeypatch, serves):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(settings, "STATE_DIR", tmp_path)
    (tmp_path / "models").mkdir()
    if serves:
        point(tmp_path / "models" / "current", write_gguf(tmp_path / "models" / "a.gguf"))
    _, out, _ = cli("doctor")
    assert ("none is installed" in out) is not serves
    assert ("service model    a.gguf" in out) is serves


def test_this_machine_is_checked(cli):
    code, out, _ = cli("doctor", "--json")
    document = json.loads(out)
    assert code == (1 if document["state"] == "fail" else 0)
    names = {check["name"] for check in document["checks"]}
    assert {"python", "llama.cpp", "gpu", "models", "disk space", "service", "memory"} <= names
