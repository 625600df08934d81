from __future__ import annotations

import random

import pytest

from profiles.device import detect_device
from profiles.device_profile import profile_for
from tests.profiles.recordings import NAMES, files_of, unpack

MIB = 1 << 20

# recording: kind, module, JetPack, power mode, total MiB, available MiB, physical, performance cores, profile
DEVICES = {
    "orin-nano-4gb": ("jetson", "Orin Nano 4GB", "6.2", "10W (mode 0)", 3461, 2560, 6, 6, "jetson-orin-nano-4gb"),
    "orin-nano-8gb": ("jetson", "Orin Nano 8GB", "5.1.2", "15W (mode 0)", 7607, 5200, 6, 6, "jetson-orin-nano-8gb"),
    "orin-nano-8gb-super": (
        "jetson", "Orin Nano 8GB", "6.2", "25W (mode 1)", 7607, 5200, 6, 6, "jetson-orin-nano-8gb"
    ),
    "orin-nx-8gb": ("jetson", "Orin NX 8GB", "6.1", "15W (mode 2)", 7607, 5888, 6, 6, "jetson-orin-nx-8gb"),
    "orin-nx-16gb": ("jetson", "Orin NX 16GB", "6.2", "25W (mode 3)", 15523, 13312, 8, 8, "jetson-orin-nx-16gb"),
    "agx-orin-32gb": ("jetson", "AGX Orin 32GB", "6.2", "30W (mode 2)", 30536, 27648, 8, 8, "jetson-agx-orin-32gb"),
    "agx-orin-64gb": ("jetson", "AGX Orin 64GB", "6.2", "MAXN (mode 0)", 62841, 59392, 12, 12, "jetson-agx-orin-64gb"),
    "pi4-4gb": ("raspberry-pi", "Pi 4", None, None, 3793, 3072, 4, 4, "raspberry-pi-4"),
    "pi4-8gb": ("raspberry-pi", "Pi 4", None, None, 7810, 7168, 4, 4, "raspberry-pi-4"),
    "pi5-4gb": ("raspberry-pi", "Pi 5", None, None, 4051, 3174, 4, 4, "raspberry-pi-5"),
    "pi5-8gb": ("raspberry-pi", "Pi 5", None, None, 8062, 6758, 4, 4, "raspberry-pi-5"),
    "pi5-16gb": ("raspberry-pi", "Pi 5", None, None, 16219, 15155, 4, 4, "raspberry-pi-5"),
    "laptop-8gb": ("laptop", None, None, None, 7733, 4608, 4, 4, "small-laptop"),
    "laptop-16gb": ("laptop", None, None, None, 15721, 11264, 12, 4, "laptop"),
    "container-4gb": ("server", None, None, None, 4096, 3976, 16, 16, "container"),
    "container-4gb-v1": ("server", None, None, None, 4096, 3584, 16, 16, "container"),
}  # fmt: skip


def test_every_recording_has_its_expectations():
    assert set(DEVICES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_device_is_known_for_what_it_is(device, name):
    found = device(name)
    board, cpu = found.board, found.cpu
    assert (
        board.kind.value,
        board.module.value,
        board.jetpack.value,
        board.power_mode.value,
        found.total_bytes.value // MIB,
        found.available_bytes.value // MIB,
        cpu.n_physical.value,
        cpu.n_performance.value,
        profile_for(found)[0].name,
    ) == DEVICES[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_value_says_where_it_comes_from_and_every_unknown_why(device, name):
    for field, reading in device(name).readings():
        assert reading.source, field
        if reading.known:
            assert reading.source.startswith("/"), (field, reading.source)
        else:
            assert reading.reason, field


def test_nothing_but_the_recording_is_read(tmp_path):
    device = detect_device(tmp_path)
    # Without files only constants are left: no memory, no processor, no limit of the machine the tests run on.
    known = {name: reading.value for name, reading in device.readings() if reading.known}
    assert known == {"board.kind": "other", "board.unified_memory": False, "memory.zram_bytes": 0}


@pytest.mark.parametrize(
    ("name", "features", "missing"),
    [
        ("pi4-8gb", {"asimd"}, {"asimddp", "i8mm"}),
        ("pi5-8gb", {"asimd", "asimddp"}, {"i8mm", "sve"}),
        ("laptop-8gb", {"avx2", "avx512f"}, {"avx_vnni"}),
        ("laptop-16gb", {"avx2", "avx_vnni"}, {"avx512f"}),
    ],
)
def test_the_features_that_choose_kernels_are_seen(device, name, features, missing):
    found = set(device(name).cpu.features.value)
    assert features <= found
    assert not missing & found


@pytest.mark.parametrize(
    ("name", "hottest", "throttled"),
    [
        ("pi4-4gb", 82.3, "at the soft temperature limit"),
        ("pi4-8gb", 51.1, "earlier: under-voltage, throttled"),
        ("pi5-8gb", 53.8, ""),
        ("orin-nano-8gb", 48.5, ""),  # the camera's zone is off and says -256
        ("laptop-16gb", 61.0, "earlier: 12 times since boot"),
    ],
)
def test_heat_and_throttling_are_told(device, name, hottest, throttled):
    heat = device(name).heat
    assert (heat.hottest_celsius.value, heat.throttled.value) == (hottest, throttled)


def test_a_jetson_whose_firmware_holds_its_clock_down_is_throttled(recorded):
    root = recorded("orin-nano-8gb", sys__class__thermal__cooling_device0__cur_state=b"1\n")
    assert detect_device(root).heat.throttled.value == "cpu-throttle-alert"


def test_an_unknown_power_mode_keeps_its_number(recorded):
    found = detect_device(recorded("orin-nano-8gb", var__lib__nvpmodel__status=b"pmode:0007\n"))
    assert found.board.power_mode.value == "mode 7"


def test_cores_that_a_power_mode_has_switched_off_do_not_count(recorded):
    found = detect_device(recorded("orin-nano-8gb", sys__devices__system__cpu__online=b"0-3\n"))
    assert (found.cpu.n_logical.value, found.cpu.n_physical.value) == (4, 4)


def test_zram_is_summed_and_swap_is_seen(device):
    memory = device("orin-nano-8gb").memory
    assert memory.zram_bytes.value == 6 * (7789568 // 2 // 6) * 1024
    assert memory.swap_total_bytes.value == 7789568 // 2 * 1024
    assert device("pi5-8gb").memory.zram_bytes.value == 0


def test_pressure_is_read_where_the_kernel_tells_it(recorded):
    stalls = (
        b"some avg10=31.50 avg60=2.00 avg300=0.10 total=9\nfull avg10=12.25 avg60=1.00 avg300=0.00 total=7\n"
    )
    memory = detect_device(recorded("pi5-8gb", proc__pressure__memory=stalls)).memory
    assert (memory.pressure_some_percent.value, memory.pressure_full_percent.value) == (31.5, 12.25)
    off = detect_device(recorded("pi5-4gb")).memory.pressure_full_percent
    assert (off.value, off.source) == (None, "/proc/pressure/memory full avg10")
    assert off.reason == "No such file or directory"


def test_an_old_kernel_without_mem_available_is_estimated(recorded):
    text = b"MemTotal: 4000000 kB\nMemFree: 1000000 kB\nCached: 500000 kB\n"
    memory = detect_device(recorded("pi4-4gb", proc__meminfo=text)).memory
    assert memory.available_bytes.value == 1_500_000 * 1024
    assert memory.available_bytes.source == "/proc/meminfo MemFree + Cached"


GARBAGE = [
    b"",
    b"\0\0\0",
    b"\xff\xfe\x00garbage\n",
    b"-1",
    b"99999999999999999999999999",
    b"0-",
    b"a:b:c\n",
    b"{" * 5000,
]


@pytest.mark.parametrize(
    "name", ["orin-nano-8gb-super", "pi5-8gb", "laptop-16gb", "container-4gb", "container-4gb-v1"]
)
def test_no_file_whatever_is_in_it_keeps_a_device_from_being_described(tmp_path, name):
    rng = random.Random(name)
    files = files_of(name)
    for i, path in enumerate(files):
        change = rng.choice([*GARBAGE, files[path][: len(files[path]) // 2], None, rng.randbytes(200)])
        device = detect_device(unpack(name, tmp_path / str(i), {path: change}))
        for field, reading in device.readings():
            assert reading.known or reading.reason, (path, change, field)
        profile_for(device)


def test_a_folder_in_a_file_s_place_is_an_unknown_value(recorded, tmp_path):
    root = recorded("pi5-8gb", proc__meminfo=None)
    (root / "proc" / "meminfo").mkdir()
    memory = detect_device(root).memory
    assert memory.total_bytes.value is None
    assert memory.total_bytes.reason == "Is a directory"


def test_a_value_that_is_no_number_is_unknown_and_quoted_in_the_reason(recorded):
    total = detect_device(recorded("pi5-8gb", proc__meminfo=b"MemTotal: lots\n")).memory.total_bytes
    assert (total.value, total.reason) == (None, "not understood: 'lots'")
