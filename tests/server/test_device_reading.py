"""What the device tells, read from recorded files."""

from __future__ import annotations

from edge.cli.device_reading import read_device
from tests.profiles.recordings import unpack


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


PLENTY = {"proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n"}


def test_temperature_power_and_memory_of_a_board_that_tells(tmp_path):
    write(tmp_path, PLENTY | {
        "sys/class/thermal/thermal_zone0/temp": "61500\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/hwmon/hwmon3/in1_label": "VDD_IN\n",
        "sys/class/hwmon/hwmon3/in1_input": "5000\n",
        "sys/class/hwmon/hwmon3/curr1_input": "1500\n",
    })  # fmt: skip
    reading = read_device(tmp_path)
    assert (reading.temperature_c, reading.power_w) == (61.5, 7.5)
    assert reading.memory_available_bytes == 4_000_000 * 1024
    assert reading.troubles == ()


def test_pressure_and_little_memory_are_troubles(tmp_path):
    write(tmp_path, {
        "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 50000 kB\n",
        "proc/pressure/memory": "some avg10=30.00 avg60=1.00 avg300=0.00 total=1\n"
                                "full avg10=12.50 avg60=1.00 avg300=0.00 total=1\n",
    })  # fmt: skip
    few, waited = read_device(tmp_path).troubles
    assert "48 MiB" in few
    assert "12.5 %" in waited


def test_a_machine_that_tells_nothing_has_no_troubles(tmp_path):
    reading = read_device(tmp_path)
    assert (reading.temperature_c, reading.power_w, reading.memory_available_bytes) == (None, None, None)
    assert reading.troubles == ()


def test_a_recorded_board_tells_mode_wear_and_throttling(tmp_path):
    reading = read_device(unpack("agx-orin-64gb", tmp_path))
    assert (reading.power_mode, reading.disk_wear_percent, reading.disk_errors) == ("MAXN (mode 0)", 20, 0)
    assert (reading.throttled, reading.memory_pressure_percent) == (False, 0.0)
    hot = read_device(unpack("pi4-4gb", tmp_path / "hot"))
    assert (hot.throttled, hot.power_mode) == (True, "ondemand")
    assert hot.troubles == ("throttling: slowed down: at the soft temperature limit",)
    assert read_device(unpack("pi4-8gb", tmp_path / "was hot")).throttled is False
