"""What recorded boards say of their health, and what is made of it."""

from __future__ import annotations

import pytest

from profiles.health import findings, read_health, troubles
from tests.profiles.recordings import NAMES

MMC = "sys__block__mmcblk0__device__"
FULL = b"some avg10=31.50 avg60=2.00 avg300=0.10 total=9\nfull avg10=12.25 avg60=1.00 avg300=0.00 total=7\n"
FIRMWARE = "sys__devices__platform__soc@107c000000__soc@107c000000:firmware__get_throttled"


PSI, MODE, MEMINFO = "proc__pressure__memory", "var__lib__nvpmodel__status", "proc__meminfo"
VOLT = "sys__class__hwmon__hwmon2__in0_lcrit_alarm"
GOVERNOR = "sys__devices__system__cpu__cpu0__cpufreq__scaling_governor"
ERRORS = "sys__fs__ext4__mmcblk0p2__errors_count"
HEAT, COOLING = "sys__class__thermal__thermal_zone3__temp", "sys__class__thermal__cooling_device0__cur_state"
SUPPLY = "sys__class__hwmon__hwmon3__oc1_event_cnt"
PI, NANO, AGX = "pi5-8gb", "orin-nano-8gb-super", "agx-orin-64gb"


def found(root):
    return {finding.name: finding for finding in findings(read_health(root))}


@pytest.mark.parametrize(
    ("name", "subject", "state", "told"),
    [
        ("orin-nano-8gb-super", "memory", "ok", "5,200 MiB available of 7,607"),
        ("orin-nano-8gb-super", "memory pressure", "ok", "0 % of the last ten seconds"),
        ("orin-nano-8gb-super", "temperature", "ok", "48.5 °C, slowed down from 99 °C"),
        ("orin-nano-8gb-super", "throttling", "ok", "none"),
        ("orin-nano-8gb-super", "power supply", "warn", "earlier: over-current 17 times since boot; drawing 6.4 W"),
        ("orin-nano-8gb-super", "power mode", "ok", "25W (mode 1)"),
        ("orin-nano-8gb-super", "governor", "ok", "schedutil"),
        ("orin-nano-8gb-super", "disk", "ok", "nvme0n1p1 (NVMe), 93 GB written"),
        ("agx-orin-64gb", "power mode", "ok", "MAXN (mode 0)"),
        ("agx-orin-64gb", "disk", "ok", "mmcblk0p1 (eMMC), 657 GB written, at most 20 % worn, spare blocks: normal"),
        ("pi5-8gb", "power supply", "ok", "no alarm"),
        ("pi5-8gb", "disk", "ok", "mmcblk0p2 (SD card), 189 GB written"),
        ("pi5-4gb", "memory pressure", "ok", "not measured by this kernel"),
        ("pi4-4gb", "temperature", "warn", "82.3 °C, slowed down from 80 °C"),
        ("pi4-4gb", "throttling", "warn", "slowed down: at the soft temperature limit"),
        ("pi4-8gb", "throttling", "warn", "earlier: under-voltage, throttled"),
        ("container-4gb", "memory", "ok", "3,976 MiB available"),
    ],
)  # fmt: skip
def test_a_recorded_board_is_judged(recorded, name, subject, state, told):
    finding = found(recorded(name))[subject]
    assert (finding.state, finding.state == "ok" or bool(finding.advice)) == (state, True)
    assert told in finding.found


@pytest.mark.parametrize(
    ("name", "changes", "subject", "state", "told", "hurts"),
    [
        (PI, {PSI: FULL}, "memory pressure", "warn", "12.25 %", True),
        (PI, {FIRMWARE: b"1\n"}, "throttling", "warn", "slowed down: under-voltage", True),
        (PI, {VOLT: b"1"}, "power supply", "warn", "under-voltage", True),
        (PI, {GOVERNOR: b"powersave"}, "governor", "warn", "powersave", False),
        (PI, {ERRORS: b"3"}, "disk", "warn", "3 errors", False),
        (NANO, {MODE: b"pmode:0000"}, "power mode", "warn", "15W (mode 0)", False),
        (NANO, {"etc__nvpmodel.conf": b"< POWER_MODEL ID=1 NAME=25W >\n"}, "power mode", "ok", "25W (mode 1)", False),
        (NANO, {HEAT: b"94500"}, "temperature", "warn", "94.5", False),
        (NANO, {COOLING: b"1"}, "throttling", "warn", "cpu-throttle-alert", True),
        (NANO, {SUPPLY: b"2"}, "power supply", "warn", "under-voltage 2 times", False),
        (AGX, {f"{MMC}life_time": b"0x02 0x09"}, "disk", "warn", "at most 90 % worn", False),
        (AGX, {f"{MMC}life_time": b"0x0b 0x01"}, "disk", "fail", "at most 110 % worn", True),
        (AGX, {f"{MMC}pre_eol_info": b"0x02"}, "disk", "warn", "80 % of the spare blocks", False),
        (AGX, {f"{MMC}pre_eol_info": b"0x03"}, "disk", "fail", "90 % of the spare blocks", True),
        (AGX, {f"{MMC}life_time": b"0x00 0x00"}, "disk", "ok", "eMMC", False),
        (PI, {MEMINFO: b"MemAvailable: 50000 kB\n"}, "memory", "fail", "48 MiB", True),
        (PI, {MEMINFO: b"MemAvailable: 200000 kB\n"}, "memory", "warn", "195 MiB", False),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_what_to_do(recorded, name, changes, subject, state, told, hurts):
    root = recorded(name, **changes)
    finding = found(root)[subject]
    assert (finding.state, finding.hurts_now) == (state, hurts)
    assert told in finding.found
    assert finding.advice or state == "ok"
    assert any(subject in text for text in troubles(read_health(root))) is hurts


def test_a_file_system_that_went_read_only_after_errors_fails(recorded):
    mounts = b"26 1 179:2 / / ro,noatime - ext4 /dev/root ro,errors=remount-ro\n"
    changes = {"proc__self__mountinfo": mounts, "sys__fs__ext4__mmcblk0p2__errors_count": b"5"}
    disk = found(recorded("pi5-8gb", **changes))["disk"]
    assert (disk.state, disk.hurts_now) == ("fail", True)
    assert disk.found.startswith("the file system is read-only after 5 errors")


def test_a_file_system_that_was_mounted_read_only_on_purpose_is_no_fault(recorded):
    mounts = b"26 1 179:2 / / ro,noatime - ext4 /dev/root ro\n"
    assert found(recorded("pi5-8gb", proc__self__mountinfo=mounts))["disk"].state == "ok"


def test_a_service_s_own_read_only_view_of_the_disk_is_no_fault(recorded):
    mounts = b"26 1 179:2 / / ro,noatime - ext4 /dev/root rw\n"
    changes = {"proc__self__mountinfo": mounts, "sys__fs__ext4__mmcblk0p2__errors_count": b"5"}
    assert found(recorded("pi5-8gb", **changes))["disk"].state == "warn"


def test_a_file_system_without_a_device_number_is_found_by_name(recorded):
    mounts = b"26 1 0:30 /@ / rw,noatime - btrfs /dev/mmcblk0p2 rw,subvol=/@\n"
    assert found(recorded("pi5-8gb", proc__self__mountinfo=mounts))["disk"].found.startswith(
        "mmcblk0p2 (SD card)"
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_finding_a_subject_and_advice_with_every_trouble(recorded, name):
    all_of_it = findings(read_health(recorded(name)))
    assert len({finding.name for finding in all_of_it}) == len(all_of_it)
    assert all(finding.advice for finding in all_of_it if finding.state != "ok")


def test_a_machine_that_tells_nothing_has_no_troubles(tmp_path):
    health = read_health(tmp_path)
    assert [finding.name for finding in findings(health)] == ["memory", "memory pressure"]
    assert troubles(health) == ()
