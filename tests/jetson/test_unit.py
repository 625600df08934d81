"""The unit, its settings and the scripts: what can be said of them without systemd as process 1."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer

from edge.cli.app import make_app

ROOT = Path(__file__).parents[2]
JETSON = ROOT / "jetson"
UNIT = "smoltools-edge.service"


@pytest.fixture
def unit():
    """Section -> name -> the values that it is given."""
    sections, section = {}, {}
    for line in (JETSON / UNIT).read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(match[1], {})
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return sections


def test_every_setting_is_an_option_of_serve():
    command = typer.main.get_command(make_app(["serve"])).commands["serve"]
    known = {option.envvar for option in command.params}
    settings = re.findall(r"^#?(SMOLTOOLS_EDGE_\w+)=", (JETSON / "environment").read_text(), re.MULTILINE)
    assert len(settings) >= 8
    assert set(settings) <= known


def test_the_unit_and_the_installer_mean_the_same_places(unit):
    script, service = (JETSON / "install.sh").read_text(), unit["Service"]
    for name, value in {
        "user": service["User"][0],
        "etc": str(Path(service["EnvironmentFile"][0]).parent),
        "state": service["WorkingDirectory"][0],
        "program": str(Path(service["ExecStart"][0].split()[0]).parents[2]),
    }.items():
        assert f"\n{name}={value}\n" in script
    assert service["WorkingDirectory"] == [f"/var/lib/{service['StateDirectory'][0]}"]


def test_a_crash_loop_comes_to_its_end(unit):
    service, limit = unit["Service"], unit["Unit"]
    assert service["Restart"] == ["on-failure"]
    assert service["RestartPreventExitStatus"] == ["2"]
    assert int(limit["StartLimitBurst"][0]) <= 5
    assert limit["StartLimitIntervalSec"] == ["10min"]


def test_it_has_longer_to_end_than_its_answers(unit):
    command = typer.main.get_command(make_app(["serve"])).commands["serve"]
    grace_s = next(option.default for option in command.params if option.name == "grace")
    assert unit["Service"]["TimeoutStopSec"] == [f"{grace_s + 15:.0f}s"]


@pytest.mark.parametrize(("drop_in", "at_most"), [((), 12), (("service-jetson.conf",), 18)])
def test_its_exposure_is_what_the_guide_says(tmp_path, drop_in, at_most):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    folder = tmp_path / "etc/systemd/system"
    (folder / f"{UNIT}.d").mkdir(parents=True)
    shutil.copy(JETSON / UNIT, folder)
    for name in drop_in:
        shutil.copy(JETSON / name, folder / f"{UNIT}.d" / name)
    command = [
        analyze,
        "security",
        "--no-pager",
        "--offline=yes",
        f"--root={tmp_path}",
        f"--threshold={at_most}",
        UNIT,
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in told.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    assert told.returncode == 0, told.stdout[-300:] + told.stderr


@pytest.fixture
def wheel_sources():
    """What of the checkout the program's wheel is made of."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    return {*wheel["packages"], *wheel["force-include"], "pyproject.toml"}


def test_an_image_is_built_from_all_that_the_wheel_needs(wheel_sources):
    everything, *rest = (ROOT / ".dockerignore").read_text().split()
    assert everything == "*"
    let_in = {line.removeprefix("!") for line in rest if line.startswith("!")}
    assert wheel_sources | {"README.md", "LICENSE"} <= let_in


def test_the_program_is_installed_anew_when_anything_of_its_wheel_has_changed(wheel_sources):
    (watched,) = re.findall(r"&& find (.+) -type f", (JETSON / "install.sh").read_text())
    assert wheel_sources <= set(watched.split())


def test_shellcheck_has_nothing_to_say():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not here")
    scripts = sorted([*JETSON.glob("*.sh"), *Path(__file__).parent.glob("*.sh")])
    told = subprocess.run([shellcheck, *map(str, scripts)], capture_output=True, text=True, check=False)
    assert (told.stdout, told.returncode) == ("", 0)
