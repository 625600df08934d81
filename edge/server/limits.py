"""What a request may cost before its first token: numbers of things, and schemas that are cheap to compile and check.

Schemas come from strangers. What they mean, and what cannot be enforced, is the grammar's matter; here is only what
would take too long or too much. Expressions that no automaton reads are refused: Python's own search takes
exponential time on some, and nothing can interrupt it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter

from edge.grammar.patterns import is_linear
from edge.server.errors import ApiError, refuse

MAX_MESSAGES = 4_096
MAX_TOOLS = 1_024
MAX_STOPS = 16
MAX_SCHEMA_PARTS = 100_000  # objects in all schemas of a request
MAX_PATTERNS = 1_000
MAX_PATTERN_SECONDS = 2.0  # for reading them all; honest ones take milliseconds
MAX_PATTERN_CHARS = 2_000


def check_schemas(value: object, param: str) -> None:
    """Raises ApiError (400) for schemas that would cost too much."""
    n_patterns, deadline = 0, perf_counter() + MAX_PATTERN_SECONDS
    for n_parts, part in enumerate(_parts(value)):
        if n_parts >= MAX_SCHEMA_PARTS:
            raise _too_much(f"schemas of more than {MAX_SCHEMA_PARTS} parts", param)
        for pattern in _patterns(part):
            n_patterns += 1
            if n_patterns > MAX_PATTERNS or perf_counter() > deadline:
                limit = f"{MAX_PATTERNS} patterns, or {MAX_PATTERN_SECONDS:g} s to read them"
                raise _too_much(f"more than {limit}", param)
            _check_pattern(pattern, param)


def _parts(value: object) -> Iterator[Mapping[str, object]]:
    """Every object in a JSON value, without recursion."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, Sequence) and not isinstance(part, str):
            waiting.extend(part)


def _patterns(part: Mapping[str, object]) -> Iterator[str]:
    if isinstance(pattern := part.get("pattern"), str):
        yield pattern
    if isinstance(named := part.get("patternProperties"), Mapping):
        yield from named


def _check_pattern(pattern: str, param: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise _too_much(f"a pattern of {len(pattern)} characters; allowed are {MAX_PATTERN_CHARS}", param)
    if not is_linear(pattern):
        raise refuse(
            f"the pattern {pattern[:80]!r} needs more than one look at each character (back references, "
            "some look-arounds, very large counts), which is not done for requests over the network",
            param=param,
            code="unsupported_schema",
        )


def _too_much(found: str, param: str) -> ApiError:
    return refuse(f"{param}: {found}", param=param, code="too_large")
