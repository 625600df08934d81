from __future__ import annotations

import pytest

from profiles.cgroups import read_limits
from profiles.device import detect_device
from profiles.reading import Tree

GIB = 1 << 30


@pytest.fixture
def limits(tmp_path):
    """The limits of a tree that is given as path and text."""

    def read(files):
        for path, text in files.items():
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return read_limits(Tree(tmp_path))

    return read


def test_the_limit_of_a_group_above_counts(limits):
    found = limits(
        {
            "proc/self/cgroup": "0::/app.slice/job\n",
            "sys/fs/cgroup/app.slice/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/app.slice/memory.current": f"{GIB}\n",
            "sys/fs/cgroup/app.slice/memory.stat": f"active_file {GIB // 4}\ninactive_file {GIB // 4}\n",
            "sys/fs/cgroup/app.slice/job/memory.max": "max\n",
        }
    )
    assert found.memory_bytes.value == 2 * GIB
    assert found.memory_bytes.source == "/sys/fs/cgroup/app.slice/memory.max"
    # 1 GiB is used, half of it page cache, which the kernel gives back.
    assert found.available_bytes.value == 2 * GIB - GIB // 2


def test_the_tightest_of_several_limits_counts_even_if_it_is_not_the_lowest(limits):
    found = limits(
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/a/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/a/b/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/a/b/memory.current": "0\n",
        }
    )
    assert found.memory_bytes.value == 2 * GIB
    assert found.available_bytes.value == GIB


def test_memory_high_is_a_limit_too(limits):
    found = limits(
        {
            "proc/self/cgroup": "0::/s\n",
            "sys/fs/cgroup/s/memory.max": "max\n",
            "sys/fs/cgroup/s/memory.high": f"{GIB}\n",
        }
    )
    assert found.memory_bytes.source == "/sys/fs/cgroup/s/memory.high"


def test_a_path_of_the_host_s_view_means_the_mount_itself(limits):
    found = limits(
        {
            "proc/self/cgroup": "7:memory:/docker/0123abcd\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "0\n",
        }
    )
    assert found.memory_bytes.value == GIB


def test_a_path_that_climbs_out_is_not_followed(limits, tmp_path):
    found = limits(
        {
            "proc/self/cgroup": "0::/../../../../outside\n",
            "outside/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/memory.max": "max\n",
        }
    )
    assert found.memory_bytes.value is None
    assert found.memory_bytes.reason == "no limit is set"


@pytest.mark.parametrize(
    ("text", "cores"),
    [("150000 100000", 1.5), ("max 100000", None), ("50000", 0.5), ("0 0", None), ("x", None)],
)
def test_the_processor_s_quota(limits, text, cores):
    found = limits({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": text})
    assert found.cpu_quota.value == cores


def test_v1_writes_its_quota_as_minus_one_when_there_is_none(limits):
    found = limits({"proc/self/cgroup": "1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"})
    assert found.cpu_quota.value is None


def test_a_limit_above_the_machine_s_memory_limits_nothing(recorded):
    assert detect_device(recorded("container-4gb")).is_limited
    huge = recorded("container-4gb", **{"sys__fs__cgroup__memory.max": b"1125899906842624\n"})
    assert not detect_device(huge).is_limited
