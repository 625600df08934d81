"""Sets of code points as ranges: union, intersection, difference, and the classes that regular expressions name."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from edge.grammar.rules import LAST_CODE_POINT, Ranges, normalised

ANY: Ranges = normalised([(0, LAST_CODE_POINT)])
DIGITS: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
# WhiteSpace and LineTerminator of ECMA-262.
SPACE: Ranges = normalised(
    [(point, point) for point in (0x20, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF)]
    + [(0x09, 0x0D), (0x2000, 0x200A)],
)
PYTHON_SPACE: Ranges = normalised([*SPACE, (0x1C, 0x1F), (0x85, 0x85)])  # what its `\\s` adds
LINE_ENDS: Ranges = ((10, 10), (13, 13), (0x2028, 0x2029))


def union(*sets: Ranges) -> Ranges:
    """Every code point of any set."""
    return normalised(span for one in sets for span in one)


def intersection(left: Ranges, right: Ranges) -> Ranges:
    """The code points of both."""
    out: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        low, high = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if low <= high:
            out.append((low, high))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(out)


def complement(ranges: Ranges) -> Ranges:
    """Every character that is not in the set."""
    out: list[tuple[int, int]] = []
    start = 0
    for low, high in ranges:
        if start < low:
            out.append((start, low - 1))
        start = high + 1
    if start <= LAST_CODE_POINT:
        out.append((start, LAST_CODE_POINT))
    return normalised(out)


def difference(left: Ranges, right: Ranges) -> Ranges:
    """The code points of `left` that are not in `right`."""
    return intersection(left, complement(right))


def size(ranges: Ranges) -> int:
    """How many code points."""
    return sum(high - low + 1 for low, high in ranges)


def partition(sets: Iterable[Ranges]) -> list[Ranges]:
    """Disjoint sets that cover every character, each inside or outside each given set.

    One sweep over all borders; characters with the same membership fall together.
    """
    borders: dict[int, list[tuple[int, int]]] = {}
    distinct = list(dict.fromkeys(sets))
    for index, ranges in enumerate((*distinct, ANY)):
        for low, high in ranges:
            borders.setdefault(low, []).append((index, 1))
            borders.setdefault(high + 1, []).append((index, 0))
    inside: set[int] = set()
    groups: dict[frozenset[int], list[tuple[int, int]]] = {}
    points = sorted(borders)
    for start, end in pairwise(points):
        for index, enters in borders[start]:
            (inside.add if enters else inside.discard)(index)
        if len(distinct) in inside:
            groups.setdefault(frozenset(inside), []).append((start, end - 1))
    return [normalised(spans) for spans in groups.values()]
