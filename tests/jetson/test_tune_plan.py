"""The plan that tune.sh prints for recorded boards."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.jetson.test_install_plan import refusal
from tests.profiles.recordings import unpack

TUNE = Path(__file__).parents[2] / "jetson" / "tune.sh"
MAXN = {"var__lib__nvpmodel__status": b"pmode:0002\n"}
SUPER = "orin-nano-8gb-super"
NVME = b"/dev/nvme0n1p1 / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n"


@pytest.fixture
def plan(tmp_path):
    """Runs tune.sh for a recorded board: the finished process. `links` are made in it, path to target."""

    counter = iter(range(100))

    def run(name, *args, links=None, **changes):
        root = unpack(
            name,
            tmp_path / f"root{next(counter)}",
            {path.replace("__", "/"): text for path, text in changes.items()},
        )
        for path, target in (links or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(target)
        command = ["bash", str(TUNE), "--root", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


def changes_of(process):
    """Name -> first line of the plan, of each change."""
    assert (process.returncode, process.stderr) == (0, "")
    lines = [line.strip() for line in process.stdout.splitlines() if line[:3].strip().rstrip(".").isdigit()]
    return {line.split(". ")[1].split(":")[0]: line.split(": ", 1)[1] for line in lines}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (b"pmode:0000\n", "power mode 25W instead of 15W (nvpmodel -m 1 on this board)"),
        (b"pmode:0002\n", "power mode 25W instead of MAXN_SUPER (nvpmodel -m 1 on this board)"),
        (b"pmode:0001\n", "nothing to do"),
    ],
)
def test_the_power_mode_is_chosen_by_its_name(plan, status, expected):
    assert changes_of(plan(SUPER, var__lib__nvpmodel__status=status))["power"] == expected


def test_another_release_has_other_numbers_for_the_same_name(plan):
    modes = {"etc__nvpmodel.conf": b"< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=25W >\n"}
    told = changes_of(plan(SUPER, **modes, var__lib__nvpmodel__status=b"pmode:0000"))
    assert told["power"] == "power mode 25W instead of MAXN (nvpmodel -m 3 on this board)"


def test_a_mode_that_is_asked_for_must_be_one_of_the_board_s(plan):
    assert (
        "power mode 15W instead of 25W (nvpmodel -m 0 on this board)"
        in plan(SUPER, "--power-mode", "15W").stdout
    )
    assert "no power mode 40W; allowed are 15W 25W MAXN_SUPER" in refusal(plan(SUPER, "--power-mode", "40W"))


def test_a_board_without_25_watts_keeps_its_mode(plan):
    assert (
        changes_of(plan("agx-orin-64gb", **{"etc__nvpmodel.conf": b"< POWER_MODEL ID=0 NAME=MAXN >\n"}))[
            "power"
        ]
        == "nothing to do"
    )


def test_the_desktop_goes_where_it_is_what_boots(plan):
    graphical = {"usr/lib/systemd/system/default.target": "graphical.target"}
    assert changes_of(plan("pi5-8gb", links=graphical))["desktop"].startswith("boots without the desktop")
    chosen = graphical | {"etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target"}
    assert changes_of(plan("pi4-8gb", links=chosen))["desktop"] == "nothing to do"


def test_caches_are_dropped_before_jetpack_7_2_alone(plan):
    assert changes_of(plan(SUPER))["caches"].startswith("drops the page cache")
    release = b"# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic\n"
    assert changes_of(plan(SUPER, etc__nv_tegra_release=release))["caches"] == "nothing to do"
    assert "caches" not in changes_of(plan("pi5-8gb"))


def test_swap_goes_to_nvme_where_there_is_one(plan):
    told = changes_of(plan(SUPER, proc__mounts=NVME))
    assert told["swap"].startswith("a swap file of 8 GiB, /var/smoltools-edge.swap")
    elsewhere = b"/dev/mmcblk0p1 / ext4 rw 0 0\n/dev/nvme0n1p1 /data ext4 rw 0 0\n"
    assert "/data/smoltools-edge.swap" in changes_of(plan(SUPER, proc__mounts=elsewhere))["swap"]
    read_only = b"/dev/mmcblk0p1 / ext4 rw 0 0\n/dev/nvme0n1p1 /data ext4 ro 0 0\n"
    assert changes_of(plan(SUPER, proc__mounts=read_only))["swap"] == "nothing to do"  # it has zram
    big = b"Filename Type Size Used Priority\n/swap file 8388604 0 -2\n"
    assert changes_of(plan(SUPER, proc__mounts=NVME, proc__swaps=big))["swap"] == "nothing to do"


def test_a_board_without_any_swap_gets_zram_of_half_its_memory(plan):
    none = b"Filename Type Size Used Priority\n"
    assert changes_of(plan("pi5-8gb", proc__swaps=none))["swap"].startswith("zram of 4031 MiB")
    assert changes_of(plan("pi5-16gb", proc__swaps=none))["swap"].startswith("zram of 4096 MiB")


def test_a_raspberry_pi_without_pressure_information_gets_it(plan):
    told = plan("pi5-8gb", proc__pressure__memory=None, **{"boot__cmdline.txt": b"console=tty1 rootwait\n"})
    assert changes_of(told)["psi"].startswith("psi=1 in /boot/cmdline.txt")
    there = {"boot__firmware__cmdline.txt": b"console=tty1 psi=1 rootwait\n"}
    assert changes_of(plan("pi5-4gb", proc__pressure__memory=None, **there))["psi"] == "nothing to do"
    other = {"boot__firmware__cmdline.txt": b"xpsi=1 psi=10\n"}
    assert changes_of(plan("pi5-16gb", proc__pressure__memory=None, **other))["psi"] != "nothing to do"


def test_a_governor_and_a_fan_are_set_where_there_are_some(plan):
    governor = "sys__devices__system__cpu__cpufreq__policy0__scaling_governor"
    told = plan("pi5-8gb", **{governor: b"ondemand\n", "sys__class__hwmon__hwmon2__name": b"pwmfan\n"})
    changes = changes_of(told)
    assert changes["governor"].startswith("processor clock always at its highest")
    assert changes["fan"].startswith("fan from 45 C on")
    assert "no fan is seen" not in told.stdout
    without = plan("pi5-4gb", **{governor: b"performance\n"})
    assert changes_of(without)["governor"] == changes_of(without)["fan"] == "nothing to do"
    assert "note: no fan is seen" in without.stdout


def test_a_jetson_s_fan_leaves_its_quiet_profile(plan):
    conf = b"<FAN 1>\n\tFAN_PROFILE quiet {\n\t}\n\tFAN_PROFILE cool {\n\t}\n\tFAN_DEFAULT_PROFILE quiet\n"
    assert changes_of(plan(SUPER, **{"etc__nvfancontrol.conf": conf}))["fan"].startswith("fan profile cool")
    cool = conf.replace(b"PROFILE quiet\n", b"PROFILE cool\n")
    assert changes_of(plan(SUPER, **{"etc__nvfancontrol.conf": cool}))["fan"] == "nothing to do"


def test_every_change_says_what_it_is_worth_and_how_it_is_undone(plan):
    graphical = {"usr/lib/systemd/system/default.target": "graphical.target"}
    told = plan(SUPER, links=graphical, proc__mounts=NVME, **MAXN)
    n_changes = sum(line != "nothing to do" for line in changes_of(told).values())
    assert n_changes == 4
    assert told.stdout.count("  worth:  ") == told.stdout.count("  undone: ") == n_changes


def test_what_is_skipped_is_not_planned(plan):
    assert list(changes_of(plan(SUPER, "--skip", "desktop", "--skip", "fan"))) == ["swap", "caches", "power"]
    assert "nvgetty is no change" in refusal(plan(SUPER, "--skip", "nvgetty"))


def test_other_machines_and_recorded_boards_are_not_tuned(plan):
    assert "neither a Jetson nor a Raspberry Pi" in refusal(plan("laptop-8gb"))
    assert "a plan can be made for it" in refusal(plan("pi5-8gb", "--apply"))
    assert "--frob is no option" in refusal(plan("pi5-4gb", "--frob"), code=2)
