"""A dialogue's messages, OpenAI style, without call ids: results follow their calls in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]
Call = tuple[str, Mapping[str, Any]]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def say(text: str) -> Message:
    return {"role": "assistant", "content": text}


def result(text: str) -> Message:
    return {"role": "tool", "content": text}


def calls(made: Sequence[Call], *, is_trained: bool = True) -> Message:
    """is_trained: off, the calls are shown and not learned: a mistake that the dialogue goes on to correct."""
    listed = [{"type": "function", "function": {"name": name, "arguments": args}} for name, args in made]
    message: Message = {"role": "assistant", "content": "", "tool_calls": listed}
    return message if is_trained else {**message, "train": False}


def arguments_of(message: Message) -> dict[str, Any]:
    """Of the first call."""
    arguments: dict[str, Any] = message["tool_calls"][0]["function"]["arguments"]
    return arguments
