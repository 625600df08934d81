"""What is kept of schemas for later calls: one cache for all of it, bounded by the memory that it takes in sum.

Compiled schemas, what their matchers have seen, automata of their patterns: each has a bound of its own, but a server
is sent any number of schemas by whoever may ask it. What was used longest ago goes first. What somebody still works
with lives on until that is done; it is only no longer found here.
"""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from threading import Lock
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Final, ParamSpec, TypeVar

LIMIT_BYTES = 64 << 20  # some 2,000 schemas of common size
_SHARED = (
    type,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
)  # the program's own, in no value alone
_ABSENT: Final = object()
P = ParamSpec("P")
T = TypeVar("T")


class Kept:
    """Values by key, up to `limit_bytes` of memory. For several threads."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._values: OrderedDict[Hashable, object] = OrderedDict()  # used longest ago first
        self._bytes: dict[Hashable, int] = {}
        self._lock = Lock()
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, default: object = None) -> object:
        """The value, which counts as used now."""
        with self._lock:
            if key not in self._values:
                return default
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: object) -> None:
        """Keeps a value with all that it refers to, unless that alone is too much."""
        n_bytes = held_bytes((key, value))
        with self._lock:
            self._drop(key)
            self._values[key], self._bytes[key] = value, n_bytes
            self.n_bytes += n_bytes
            self._make_room()

    def grew(self, key: Hashable, n_bytes: int) -> None:
        """Counts what a value that is kept has come to hold since; less than nothing where it let something go."""
        with self._lock:
            if key in self._values:
                self._bytes[key] += n_bytes
                self.n_bytes += n_bytes
                self._make_room()

    def _make_room(self) -> None:
        while self.n_bytes > self._limit_bytes:
            self._drop(next(iter(self._values)))

    def _drop(self, key: Hashable) -> None:
        if self._values.pop(key, _ABSENT) is not _ABSENT:
            self.n_bytes -= self._bytes.pop(key)


KEPT: Final = Kept()


def kept(make: Callable[P, T]) -> Callable[P, T]:
    """What a function of hashable arguments returns is kept with everything else; what it raises is not."""

    @wraps(make)
    def known_or_made(*args: P.args, **kwargs: P.kwargs) -> T:
        key = (make, args, tuple(sorted(kwargs.items())))
        value = KEPT.get(key, _ABSENT)
        if value is _ABSENT:
            value = make(*args, **kwargs)
            KEPT.put(key, value)
        return value  # type: ignore[return-value]

    return known_or_made


def held_bytes(value: object) -> int:
    """Bytes of a value and of all that it refers to, shared or not. Costs about what making the value did."""
    seen: set[int] = set()
    waiting, total = [value], 0
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, _SHARED):
            continue
        seen.add(id(each))
        total += sys.getsizeof(each)
        waiting += gc.get_referents(each)
    return total
