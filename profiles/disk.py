"""The disk that the root file system is on: what kind it is, and what hints at its wear.

Free space is not here: a recorded tree does not tell it. NVMe and SATA disks tell their wear to `smartctl` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiles.reading import Reading, Tree, unknown

_BLOCK = "sys/block"
# JEDEC JESD84-B51, EXT_CSD 267 to 269: tenths of the life time that are used, and how many spare blocks are left.
_LIFE_STEP_PERCENT = 10
_SPARE = {1: "normal", 2: "80 % of the spare blocks are used", 3: "90 % of the spare blocks are used"}


@dataclass(frozen=True, slots=True)
class Disk:
    """device: the partition. wear_percent: at most so much of the life time is used; 110 means all and more.

    errors, written_bytes: of the file system since it was made. read_only: also after an error that the kernel met.
    """

    device: Reading[str]
    kind: Reading[str]
    read_only: Reading[bool]
    errors: Reading[int]
    written_bytes: Reading[int]
    wear_percent: Reading[int]
    spare: Reading[str]


@dataclass(frozen=True, slots=True)
class _Mount:
    number: str  # major:minor
    source: str
    is_read_only: bool


def read_disk(tree: Tree) -> Disk:
    """From /proc/self/mountinfo, /sys/block and /sys/fs."""
    mount = tree.text("proc/self/mountinfo").map(_root_mount, "it has no root file system")
    place = mount.map(lambda found: _place(tree, found), "its device is not in /sys/block")
    disk, partition = place.value or ("", "")
    where = f"{_BLOCK}/{disk}"
    kind = place.map(lambda _: _kind(tree, disk), "neither an SD card nor eMMC, NVMe, SSD or hard disk")
    return Disk(
        device=place.map(lambda found: found[1]),
        kind=kind,
        read_only=mount.map(lambda found: found.is_read_only),
        errors=_of_file_system(tree, place, partition, "errors_count"),
        written_bytes=_of_file_system(tree, place, partition, "lifetime_write_kbytes").map(
            lambda kib: kib * 1024
        ),
        wear_percent=_emmc(tree, kind, f"{where}/device/life_time").map(_wear_percent, "not defined"),
        spare=_emmc(tree, kind, f"{where}/device/pre_eol_info").map(
            lambda text: _SPARE.get(int(text, 16)), "not defined"
        ),
    )


def _root_mount(text: str) -> _Mount | None:
    """The last mount on `/`. Options behind the dash are the file system's; a service's own view may be read-only."""
    found = None
    for line in text.splitlines():
        before, dash, behind = line.partition(" - ")
        fields, file_system = before.split(), behind.split()
        if dash and len(fields) > 4 and fields[4] == "/" and len(file_system) > 2:
            found = _Mount(fields[2], file_system[1], "ro" in file_system[2].split(","))
    return found


def _place(tree: Tree, mount: _Mount) -> tuple[str, str] | None:
    """Disk and partition by the device number, or by name where that is not a disk's (btrfs)."""
    named = mount.source.rpartition("/")[2]
    for disk in tree.names(_BLOCK, r"(?!loop|ram).+"):
        for partition in (disk, *tree.names(f"{_BLOCK}/{disk}", rf"{disk}p?\d+")):
            where = f"{_BLOCK}/{disk}" if partition == disk else f"{_BLOCK}/{disk}/{partition}"
            if partition == named or tree.text(f"{where}/dev").value == mount.number:
                return disk, partition
    return None


def _kind(tree: Tree, disk: str) -> str | None:
    if disk.startswith("mmcblk"):
        return {"SD": "SD card", "MMC": "eMMC"}.get(tree.text(f"{_BLOCK}/{disk}/device/type").value or "")
    if disk.startswith("nvme"):
        return "NVMe"
    rotational = tree.text(f"{_BLOCK}/{disk}/queue/rotational").value or ""
    return {"0": "SSD", "1": "hard disk"}.get(rotational)


def _of_file_system(tree: Tree, place: Reading[tuple[str, str]], partition: str, name: str) -> Reading[int]:
    if not place.known:
        return unknown(place.source, place.reason)
    return tree.number(f"sys/fs/ext4/{partition}/{name}").or_else(
        tree.number(f"sys/fs/f2fs/{partition}/{name}")
    )


def _emmc(tree: Tree, kind: Reading[str], path: str) -> Reading[str]:
    if kind.value == "eMMC":
        return tree.text(path)
    why = {"SD card": "an SD card does not tell", None: kind.reason}.get(kind.value, "smartctl tells")
    return unknown(kind.source, why)


def _wear_percent(text: str) -> int | None:
    """Of the two kinds of cells the one that is worn more."""
    steps = [int(part, 16) for part in text.split()]
    return max(steps) * _LIFE_STEP_PERCENT if 1 <= max(steps) <= 11 else None
