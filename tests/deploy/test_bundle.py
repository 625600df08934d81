"""A bundle for a board without a network: what is in it, that it is whole, and what it says it lacks."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import stat
import subprocess
import tarfile
import zipfile

import pytest

from edge.deploy import bundle as bundle_module
from edge.deploy import wheelhouse
from edge.deploy.bundle import BundleRequest, make_bundle, verify_bundle
from edge.deploy.errors import DeployError
from edge.deploy.own_wheel import repack
from edge.deploy.wheelhouse import Board
from profiles.errors import DeviceProfileError
from profiles.target import target_device, target_profiles
from tests.tiny_gguf import write_gguf

ORIN = Board("aarch64", "2.35", "3.11", cuda=True)


@pytest.fixture
def no_pip(monkeypatch):
    """The wheelhouse without fetching: three files, and the sentences that it would say."""

    def fill(folder, board, compiled, tell):
        for name in ("smoltools_edge-0.1.0-py3-none-any.whl", "pip-26-py3-none-any.whl"):
            (folder / name).write_bytes(name.encode())
        return [] if board.is_this else wheelhouse._not_compiled(board)

    monkeypatch.setattr(bundle_module, "fill", fill)


@pytest.fixture
def model(tmp_path):
    return write_gguf(tmp_path / "tiny-f32.gguf")


def made(tmp_path, model, board=ORIN):
    request = BundleRequest(target="jetson-orin-nano-8gb", board=board, model=model, out=tmp_path / "out")
    return make_bundle(request, lambda line: None)


def test_it_unpacks_to_one_folder_that_sha256sum_accepts(tmp_path, model, no_pip):
    found = made(tmp_path, model)
    assert found.path.name == "smoltools-edge-bundle-jetson-orin-nano-8gb.tar"
    subprocess.run(["tar", "-xf", found.path, "-C", tmp_path], check=True)
    folder = tmp_path / "smoltools-edge-bundle-jetson-orin-nano-8gb"
    check = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=False
    )
    assert check.returncode == 0
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert there - {"SHA256SUMS"} == listed
    for name in ("install.sh", "board.sh", "smoltools-edge.service", "environment", "models/tiny-f32.gguf"):
        assert name in listed
    assert os.stat(folder / "install.sh").st_mode & stat.S_IXUSR  # noqa: PTH116
    document = json.loads((folder / "bundle.json").read_text())
    assert (document["format"], document["target"], document["model"]) == (
        1,
        "jetson-orin-nano-8gb",
        "tiny-f32.gguf",
    )
    (row,) = (row for row in document["files"] if row["path"] == "models/tiny-f32.gguf")
    assert (row["size_bytes"], row["sha256"]) == (
        model.stat().st_size,
        hashlib.sha256(model.read_bytes()).hexdigest(),
    )
    assert [p.name for p in (tmp_path / "out").iterdir()] == [found.path.name]


def test_what_another_machine_cannot_include_is_said(tmp_path, model, no_pip):
    found = made(tmp_path, model)
    assert any("a compiled llama.cpp" in text and "aarch64" in text for text in found.missing)
    assert any("build-essential" in text for text in found.missing)
    assert any("nvcc" in text for text in found.missing)
    assert any("Python 3.11 and libgomp1" in text and "JetPack 6" in text for text in found.missing)
    without = made(tmp_path, None, Board("x86_64", "2.36", "3.11", is_this=True))
    assert without.missing == ("a model: install.sh --model FILE takes one that is on the board",)


def test_a_changed_byte_a_lost_file_and_a_strange_one_are_found(tmp_path, model, no_pip):
    path = made(tmp_path, model).path
    assert verify_bundle(path) > 8
    whole = path.read_bytes()
    place = whole.index(b"GGUF") + 5000
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(DeployError, match=r"models/tiny-f32\.gguf is not what SHA256SUMS lists"):
        verify_bundle(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DeployError):
        verify_bundle(path)
    path.write_bytes(whole)
    with tarfile.open(path, "a") as archive:
        archive.add(__file__, "smoltools-edge-bundle-jetson-orin-nano-8gb/wheels/evil.whl")
    with pytest.raises(DeployError, match=r"wheels/evil\.whl is not what SHA256SUMS lists"):
        verify_bundle(path)


def test_a_file_that_is_no_model_and_a_pip_that_fails_leave_nothing_behind(tmp_path, monkeypatch, cli):
    (tmp_path / "bad.gguf").write_bytes(b"no model")
    code, _, err = cli(
        "bundle", "--target", "raspberry-pi-5", "--model", tmp_path / "bad.gguf", "--out", tmp_path / "o"
    )
    assert code == 1
    assert err.startswith("error: ")
    assert "bad.gguf" in err

    def fails(*_):
        raise DeployError("pip download failed: no index")

    monkeypatch.setattr(bundle_module, "fill", fails)
    good = write_gguf(tmp_path / "good.gguf")
    code, _, err = cli("bundle", "--target", "raspberry-pi-5", "--model", good, "--out", tmp_path / "o")
    assert (code, err.splitlines()[-1]) == (1, "error: pip download failed: no index")
    assert list((tmp_path / "o").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--target", "toaster"], "'toaster' is no target; allowed are this, jetson-agx-orin-32gb"),
        (["--target", "laptop"], "'laptop' is no target"),
        (["--target", "raspberry-pi-5", "--python", "3.9", "--model", "none"], "allowed are 3.11 and newer"),
        (["--python", "3.99", "--model", "none"], "needs a --target"),
        (["--verify", "/nowhere.tar"], "/nowhere.tar cannot be read: No such file or directory"),
        (["--verify", "/"], "/ cannot be read: Is a directory"),
        (["--python", "2.7"], "--python is '2.7'; allowed are 3.11 and newer"),
        (["--verify", __file__], "not a tar file: file could not be opened successfully; copy"),
    ],
)
def test_odd_arguments_are_one_line(cli, arguments, told):
    code, out, err = cli("bundle", *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert told in err


def test_a_target_stands_for_a_device_that_is_not_here():
    device, profile = target_device("jetson-orin-nano-8gb")
    assert (device.available_bytes.value, profile.target.machine) == (5200 << 20, "aarch64")
    assert target_device("raspberry-pi-5", 3000)[0].available_bytes.value == 3000 << 20
    assert "laptop" not in target_profiles()
    with pytest.raises(DeviceProfileError):
        target_device("laptop")


def test_wheels_are_asked_for_as_the_board_takes_them():
    options = ORIN.pip_options()
    assert "--platform=manylinux_2_28_aarch64" in options
    assert "--platform=manylinux_2_35_aarch64" in options
    assert "--platform=manylinux_2_36_aarch64" not in options
    assert options[options.index("--abi") :][:2] == ["--abi", "cp311"]


def test_a_wheel_folder_without_one_for_the_board_is_refused(tmp_path):
    (tmp_path / "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl").touch()
    with pytest.raises(DeployError, match="holds no wheel of llama-cpp-python for aarch64"):
        wheelhouse._llama(tmp_path, ORIN, tmp_path, lambda line: None)


def test_an_installed_package_becomes_a_wheel_again(tmp_path):
    wheel = repack("diskcache", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        for name, digest, size in rows[:-1]:
            content = archive.read(name)
            told = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={told}", len(content))
    assert [row[0] for row in rows] == names
    assert "diskcache/__init__.py" in names
    assert not any(name.endswith(("INSTALLER", "REQUESTED", ".pyc")) for name in names)


def test_a_package_that_is_not_here_cannot_be_packed(tmp_path):
    with pytest.raises(DeployError, match="is not installed here"):
        repack("no-such-package-anywhere", tmp_path)
