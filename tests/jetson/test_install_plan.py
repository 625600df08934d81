"""The plan that install.sh prints for recorded boards. Applying and reverting is proven by in_debian_root.sh."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.profiles.recordings import NAMES, unpack

JETSON = Path(__file__).parents[2] / "jetson"
OLD = "orin-nano-8gb"  # recorded with JetPack 5
ORINS = [name for name in NAMES if "orin" in name and name != OLD]
PIS = [name for name in NAMES if name.startswith("pi")]


@pytest.fixture
def plan(tmp_path):
    """Runs install.sh for a recorded board: the finished process."""

    counter = iter(range(100))

    def run(name, *args, script=JETSON / "install.sh", **changes):
        files = {path.replace("__", "/"): text for path, text in changes.items()}
        root = unpack(name, tmp_path / f"root{next(counter)}", files)
        command = ["bash", str(script), "--root", str(root), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


def refusal(process, code=1):
    """The one line of an error."""
    assert process.returncode == code
    assert process.stderr.startswith("error: ")
    assert len(process.stderr.splitlines()) == 1
    return process.stderr


def check_plan(process):
    """A plan of six changes, each with its undo, and nothing done."""
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    changes = [line.split(":")[0].strip() for line in lines if line[:3].strip().rstrip(".").isdigit()]
    assert changes == ["1. packages", "2. user", "3. program", "4. model", "5. settings", "6. service"]
    assert sum(line.strip().startswith("undone: ") for line in lines) == len(changes)
    assert "Nothing was changed. To do it: sudo" in lines[-1]


@pytest.mark.parametrize("name", ORINS)
def test_an_orin_is_built_for_its_gpu_and_no_other(plan, name):
    told = plan(name)
    check_plan(told)
    assert "CUDA for SM 8.7 alone" in told.stdout
    assert "kernels of this processor: dotprod\n" in told.stdout
    assert "L4T 36." in told.stdout
    assert "JetPack 6" in told.stdout
    assert "python3.11 python3.11-venv" in told.stdout  # Ubuntu 22.04's own Python is too old
    assert "20-jetson.conf" in told.stdout


@pytest.mark.parametrize("name", PIS)
def test_a_raspberry_pi_is_built_for_its_processor_alone(plan, name):
    told = plan(name)
    check_plan(told)
    assert "CUDA" not in told.stdout
    assert "20-jetson.conf" not in told.stdout
    kernels = " dotprod" if name.startswith("pi5") else " none beyond the baseline"
    assert f"kernels of this processor:{kernels}\n" in told.stdout
    assert "GGML_NATIVE=ON: what is built here runs here alone" in told.stdout


@pytest.mark.parametrize("name", ["laptop-8gb", "container-4gb"])
def test_any_other_machine_is_served_too(plan, name):
    check_plan(plan(name))


def test_a_compiler_process_for_each_gigabyte_and_a_half_that_is_free(plan):
    assert "compiled on this board, 3 at a time" in plan("orin-nano-8gb-super").stdout  # 6 cores, 5,200 MiB
    assert "compiled on this board, 4 at a time" in plan("pi5-8gb").stdout  # 4 cores, 6,758 MiB
    little = plan("pi4-4gb", proc__meminfo=b"MemTotal: 3999999 kB\nMemAvailable: 900000 kB\n")
    assert "compiled on this board, 1 at a time" in little.stdout


@pytest.mark.parametrize(
    ("release", "found"),
    [
        (b"# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic\n", "L4T 39.2.0, JetPack 7"),
        (b"# R36 (release), REVISION: 2.0, GCID: 1, BOARD: generic\n", "L4T 36.2.0, JetPack 6"),
    ],
)
def test_jetpack_6_and_7_are_known(plan, release, found):
    assert found in plan("orin-nano-8gb-super", etc__nv_tegra_release=release).stdout


def test_an_older_jetpack_is_refused_unless_its_gpu_is_left_alone(plan):
    expected = "L4T 35.4.1 is not supported; JetPack 6 (L4T 36) and 7 (L4T 38, 39) are"
    assert expected in refusal(plan(OLD))
    assert "for the CPU alone, as asked" in plan(OLD, "--cpu-only").stdout


@pytest.mark.parametrize("release", [b"garbage", None])
def test_a_jetson_whose_release_is_unknown_is_refused(plan, release):
    told = refusal(plan("orin-nano-8gb-super", etc__nv_tegra_release=release))
    assert "L4T of this board is not supported" in told


def test_the_gpu_of_an_older_jetson_is_refused(plan):
    told = plan(
        "orin-nano-8gb-super", **{"proc__device-tree__compatible": b"nvidia,p2888\0nvidia,tegra194\0"}
    )
    assert "is not an Orin" in refusal(told)


def test_a_recorded_board_is_not_changed(plan):
    assert "a plan can be made for it" in refusal(plan("pi5-8gb", "--apply"))
    assert "a plan can be made for it" in refusal(plan("pi5-8gb", "--revert"))


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--frob"], 2, "--frob is no option"),
        (["--bundle"], 1, "--bundle needs a value"),
        (["--bundle", "/nowhere"], 1, "/nowhere does not exist"),
        (["--wheels", "/nowhere"], 1, "/nowhere is not a folder"),
        (["--root", "/nowhere"], 1, "/nowhere holds no proc"),
        (["--python", "/bin/false"], 1, "/bin/false is not Python 3.11"),
    ],
)
def test_bad_arguments_are_one_line(plan, args, code, message):
    assert message in refusal(plan("pi5-8gb", *args), code)


@pytest.fixture
def bundle(tmp_path):
    """A bundle's folder, with empty wheels, and the files of jetson/."""
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "models").mkdir()
    for path in filter(Path.is_file, JETSON.iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "wheels" / "llama_cpp_python-0.3.36-py3-none-linux_aarch64.whl").write_bytes(b"")
    (folder / "models" / "tiny.gguf").write_bytes(b"GGUF")
    (folder / "bundle.json").write_text(
        '{\n  "format": 1,\n  "target": "raspberry-pi-5",\n  "model": "tiny.gguf"\n}\n'
    )
    list_files(folder)
    return folder


def list_files(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}\n" for p in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_a_bundle_brings_the_program_and_the_model_and_needs_no_compiler(plan, bundle):
    told = plan("pi5-8gb", script=bundle / "install.sh")
    assert (told.returncode, told.stderr) == (0, "")
    assert f"the bundle {bundle}, checked against its SHA256SUMS" in told.stdout
    assert "the bundle's wheel; not compiled here" in told.stdout
    assert "build-essential" not in told.stdout
    assert "model: tiny.gguf, from the bundle" in told.stdout


def test_a_bundle_with_a_source_package_is_compiled_and_one_with_pip_needs_no_venv_package(plan, bundle):
    wheel = next(bundle.glob("wheels/llama*"))
    wheel.rename(bundle / "wheels" / "llama_cpp_python-0.3.36.tar.gz")
    (bundle / "wheels" / "pip-26.0-py3-none-any.whl").write_bytes(b"")
    list_files(bundle)
    told = plan("pi5-8gb", "--bundle", bundle)
    assert "build-essential cmake ninja-build" in told.stdout
    assert "-venv" not in told.stdout


def test_a_bundle_without_a_model_wants_one_named(plan, bundle):
    (bundle / "bundle.json").write_text('{\n  "format": 1,\n  "model": null\n}\n')
    list_files(bundle)
    assert "holds no model; name one with --model FILE" in refusal(plan("pi5-8gb", "--bundle", bundle))
    assert "model: /x.gguf;" in plan("pi5-8gb", "--bundle", bundle, "--model", "/x.gguf").stdout


def test_a_bundle_for_another_python_is_refused(plan, bundle):
    (bundle / "bundle.json").write_text('{\n  "model": "tiny.gguf",\n  "python": "3.99"\n}\n')
    list_files(bundle)
    told = refusal(plan("pi5-8gb", "--bundle", bundle, "--python", sys.executable))
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"the bundle is for Python 3.99 and {sys.executable} is {here}" in told


def test_a_bundle_for_another_processor_is_refused(bundle):
    (bundle / "bundle.json").write_text('{\n  "model": "tiny.gguf",\n  "machine": "pdp11"\n}\n')
    list_files(bundle)
    told = subprocess.run(
        ["bash", bundle / "install.sh"], capture_output=True, text=True, check=False, timeout=60
    )
    assert f"the bundle is for pdp11 and this machine is {platform.machine()}" in refusal(told)


def test_a_bundle_may_be_a_tar_file(plan, bundle):
    subprocess.run(["tar", "-C", bundle.parent, "-cf", bundle.parent / "b.tar", "bundle"], check=True)
    unpacked = Path("/var/tmp")
    before = set(unpacked.glob("smoltools-edge-bundle*"))
    told = plan("pi5-8gb", "--bundle", bundle.parent / "b.tar")
    assert "model: tiny.gguf, from the bundle" in told.stdout
    assert set(unpacked.glob("smoltools-edge-bundle*")) <= before


@pytest.mark.parametrize("harm", ["changed", "missing", "added", "added link", "no list", "not a tar"])
def test_a_damaged_bundle_is_refused_before_anything_else(plan, bundle, tmp_path, harm):
    given = bundle
    model = bundle / "models" / "tiny.gguf"
    if harm == "changed":
        model.write_bytes(b"GGUX")
    elif harm == "missing":
        model.unlink()
    elif harm == "added":
        (bundle / "wheels" / "evil-1.0-py3-none-any.whl").write_bytes(b"")
    elif harm == "added link":
        (bundle / "wheels" / "evil-1.0-py3-none-any.whl").symlink_to("/etc/passwd")
    elif harm == "no list":
        (bundle / "SHA256SUMS").unlink()
    else:
        given = tmp_path / "b.tar"
        given.write_bytes(b"no tar file")
    told = refusal(plan("pi5-8gb", "--bundle", given))
    expected = {
        "changed": "models/tiny.gguf: FAILED",
        "missing": "models/tiny.gguf",
        "added": "evil-1.0-py3-none-any.whl, which its SHA256SUMS does not list",
        "added link": "evil-1.0-py3-none-any.whl, which its SHA256SUMS does not list",
        "no list": "holds no SHA256SUMS: it is not a bundle",
        "not a tar": "cannot be unpacked",
    }
    assert expected[harm] in told
