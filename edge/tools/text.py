"""Text that tools hand back, before the model or a terminal gets it: bounded, marked when cut, without commands."""

from __future__ import annotations

import json
import re

from edge.tools.executable import ToolResult

# What a chat template or a tokenizer would obey: <|im_end|>, <tool_call>, </tool_response>, <think> and their like.
_CHAT_MARKS = re.compile(r"<(?=\||/?(?:tool_call|tool_response|tools|think|s)\b)")
_ESCAPE_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # window title, clipboard, hyperlinks, device strings
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def bounded(result: ToolResult, max_chars: int) -> ToolResult:
    """The result with at most about max_chars characters; what was cut is said at the end."""
    if len(result.text) <= max_chars:
        return result
    mark = f"\n[cut: the first {max_chars} of {len(result.text)} characters]"
    return ToolResult(result.text[:max_chars] + mark, is_error=result.is_error, cut=True)


def for_model(text: str) -> str:
    """Text without terminal sequences and with chat markup broken up, so that it ends no turn and opens no call."""
    return _CHAT_MARKS.sub("< ", without_escapes(text))


def without_escapes(text: str) -> str:
    """Text without terminal escape sequences and control characters; newlines and tabs stay."""
    text = _ESCAPE_SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def shown_exactly(value: object) -> str:
    """JSON of a value in printable characters alone: what looks different is different.

    Invisible, right-to-left and control characters come as \\u escapes.
    """
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) > 0x7F else f"\\u{ord(char):04x}"
