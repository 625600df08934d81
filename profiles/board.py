"""Which machine this is: a Jetson module, a Raspberry Pi, an Apple computer, or a laptop, desktop or server."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from profiles.reading import Reading, Tree, unknown

# The module's part number stands in the device tree's `compatible` (p3767: Orin NX and Nano, p3701: AGX Orin).
# NVIDIA Jetson Linux Developer Guide, "Jetson Module Names", and the modules' data sheets.
_JETSON_MODULES = {
    "p3767-0000": "Orin NX 16GB",
    "p3767-0001": "Orin NX 8GB",
    "p3767-0003": "Orin Nano 8GB",
    "p3767-0004": "Orin Nano 4GB",
    "p3767-0005": "Orin Nano 8GB",
    "p3701-0000": "AGX Orin 32GB",
    "p3701-0004": "AGX Orin 32GB",
    "p3701-0005": "AGX Orin 64GB",
    "p3701-0008": "AGX Orin 64GB",
}
# First matching prefix counts. https://developer.nvidia.com/embedded/jetpack-archive
_JETPACKS = (
    ("39.", "7.2"), ("38.4", "7.1"), ("38.", "7.0"), ("36.5", "6.2.2"), ("36.4.4", "6.2.1"), ("36.4.7", "6.2.1"),
    ("36.4.3", "6.2"), ("36.4", "6.1"), ("36.3", "6.0"), ("36.2", "6.0 DP"), ("35.6", "5.1.4"), ("35.5", "5.1.3"),
    ("35.4", "5.1.2"), ("35.3", "5.1.1"), ("35.2", "5.1"), ("35.1", "5.0.2"), ("32.7", "4.6"),
)  # fmt: skip
# SMBIOS 3.6, table 17 (chassis types).
_CHASSIS = {
    "3": "desktop", "4": "desktop", "5": "desktop", "6": "desktop", "7": "desktop", "13": "desktop", "15": "desktop",
    "35": "desktop", "8": "laptop", "9": "laptop", "10": "laptop", "14": "laptop", "30": "laptop", "31": "laptop",
    "32": "laptop", "17": "server", "23": "server", "28": "server", "29": "server",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Board:
    """kind: jetson, raspberry-pi, apple, laptop, desktop, server or other. The rest is unknown where it has no sense.

    module: `Orin Nano 8GB`, `Pi 5`. sku: the module's part number.
    """

    kind: Reading[str]
    model: Reading[str]
    module: Reading[str]
    sku: Reading[str]
    l4t: Reading[str]
    jetpack: Reading[str]
    power_mode: Reading[str]
    unified_memory: Reading[bool]


def read_board(tree: Tree) -> Board:
    """From the device tree, /etc/nv_tegra_release, nvpmodel's files, and DMI."""
    model = _device_tree(tree, "model").or_else(_dmi_model(tree))
    compatible = _device_tree(tree, "compatible")
    l4t = tree.text("etc/nv_tegra_release").map(_parse_l4t)
    kind = _kind(tree, model, compatible, l4t)
    sku = compatible.map(_sku, "no module part number in it")
    module = sku.map(_JETSON_MODULES.get) if kind.value == "jetson" else _pi_module(kind, model)
    unified = kind.map(lambda name: True if name in ("jetson", "raspberry-pi", "apple") else None)
    return Board(
        kind=kind,
        model=model,
        module=module,
        sku=sku,
        l4t=l4t,
        jetpack=l4t.map(_jetpack, "no JetPack is known for this release"),
        power_mode=_power_mode(tree),
        unified_memory=Reading(bool(unified.value), kind.source),
    )


def _device_tree(tree: Tree, name: str) -> Reading[str]:
    # /proc/device-tree is a link that a recording need not have; texts end with a NUL byte.
    return tree.text(f"proc/device-tree/{name}").or_else(tree.text(f"sys/firmware/devicetree/base/{name}"))


def _dmi_model(tree: Tree) -> Reading[str]:
    vendor, product = (tree.text(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    return product.map(lambda text: " ".join(filter(None, (vendor.value, text))))


def _kind(tree: Tree, model: Reading[str], compatible: Reading[str], l4t: Reading[str]) -> Reading[str]:
    if "nvidia,tegra" in (compatible.value or "") or "Jetson" in (model.value or ""):
        return Reading("jetson", compatible.source if compatible.known else model.source)
    if l4t.known:
        return Reading("jetson", l4t.source)
    if "Raspberry Pi" in (model.value or ""):
        return Reading("raspberry-pi", model.source)
    if tree.is_this_machine and platform.system() == "Darwin":
        return Reading("apple", "platform.system()")
    if "Apple" in (model.value or ""):
        return Reading("apple", model.source)
    chassis = tree.text("sys/class/dmi/id/chassis_type").map(_CHASSIS.get)
    if tree.names("sys/class/power_supply", r"BAT\d+"):
        return Reading("laptop", "/sys/class/power_supply/BAT*")
    return chassis.or_else(Reading("other", chassis.source))


def _sku(compatible: str) -> str | None:
    # "nvidia,p3768-0000+p3767-0005-super", NUL, "nvidia,p3767-0005", ...: carrier board first, then the module.
    for name in re.findall(r"p\d{4}-\d{4}", compatible):
        if name in _JETSON_MODULES:
            return str(name)
    return None


def _pi_module(kind: Reading[str], model: Reading[str]) -> Reading[str]:
    if kind.value != "raspberry-pi":
        return unknown(kind.source, "not a board with modules")

    def generation(text: str) -> str | None:
        match = re.search(r"(?:Pi|Compute Module|Pi CM) (\d{1,3})", text, re.ASCII)
        return f"Pi {match[1]}" if match else None

    return model.map(generation)


def _parse_l4t(text: str) -> str | None:
    match = re.search(r"R(\d{2}) \(release\), REVISION: (\d+(?:\.\d+)*)", text, re.ASCII)
    return f"{match[1]}.{match[2]}" if match else None


def _jetpack(l4t: str) -> str | None:
    return next((name for prefix, name in _JETPACKS if l4t.startswith(prefix)), None)


def _power_mode(tree: Tree) -> Reading[str]:
    """nvpmodel's present mode by name. The numbers mean something else on each module and release."""
    status = tree.text("var/lib/nvpmodel/status").map(
        lambda text: int(m[1]) if (m := re.search(r"pmode:(\d{1,4})", text, re.ASCII)) else None
    )
    if status.value is None:
        return unknown(status.source, status.reason)
    table = tree.text("etc/nvpmodel.conf")
    number = status.value

    def name(text: str) -> str | None:
        match = re.search(rf"<\s*POWER_MODEL\s+ID={number}\s+NAME=(\S+)\s*>", text)
        return match[1] if match else None

    named = table.map(name)
    if named.value is None:
        return Reading(f"mode {number}", status.source)
    return Reading(f"{named.value} (mode {number})", f"{status.source}, {named.source}")
