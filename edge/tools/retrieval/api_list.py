"""ToolBench's API descriptions as tools, named and typed as StableToolBench gives them to a model.

Facts: https://github.com/THUNLP-MT/StableToolBench, toolbench/inference (`<api>_for_<tool>`, the last 64 characters,
descriptions of 256 characters, NUMBER/STRING/BOOLEAN to integer/string/boolean, anything else to string).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edge.errors import RetrievalError
from edge.types import Tool

MAX_NAME_CHARS = 64
MAX_DESCRIPTION_CHARS = 256
_TYPES = {"NUMBER": "integer", "STRING": "string", "BOOLEAN": "boolean"}


def is_api(row: Mapping[str, object]) -> bool:
    """Whether a decoded row is an entry of an `api_list`."""
    return isinstance(row.get("api_name"), str) and "tool" not in row and "function" not in row


def tool_of_api(row: Mapping[str, object], place: str) -> tuple[Tool, str]:
    """The tool of an `api_list` entry and its category. Raises RetrievalError beginning with `place`."""
    tool_name = str(row.get("tool_name") or "")
    name = _standard(str(row["api_name"])) + (f"_for_{_standard(tool_name)}" if tool_name else "")
    required, optional = (
        _parameters(row.get(f"{kind}_parameters"), place) for kind in ("required", "optional")
    )
    schema: dict[str, object] = {"type": "object", "properties": required | optional}
    if required:
        schema["required"] = list(required)
    description = str(row.get("api_description") or "")[:MAX_DESCRIPTION_CHARS]
    return Tool(name[-MAX_NAME_CHARS:], schema, description), str(row.get("category_name") or "")


def _parameters(value: object, place: str) -> dict[str, object]:
    if not isinstance(value, list | None):
        raise RetrievalError(f"{place}: its parameters are no list of {{name, type, description}}")
    found: dict[str, object] = {}
    for entry in value or ():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise RetrievalError(f"{place}: a parameter has no name")
        schema = {"type": _TYPES.get(str(entry.get("type")), "string")}
        if description := str(entry.get("description") or "")[:MAX_DESCRIPTION_CHARS]:
            schema["description"] = description
        found[_standard(entry["name"])] = schema
    return found


def _standard(name: str) -> str:
    """Lower case, anything but letters and digits an underscore, none doubled or at an end, no digit first."""
    standard = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"get_{standard}" if standard[:1].isdigit() else standard or "unnamed"
