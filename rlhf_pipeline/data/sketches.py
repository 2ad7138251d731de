"""Counts over any number of rows in little memory: lengths, the most frequent names, how many things are the same.

Lengths and names take a fixed size, things that are the same 8 bytes each. All are exact until they are full, and say
by how much they may err afterwards. Left out: merging the counts of several processes.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy

T = TypeVar("T")


class Lengths:
    """A histogram of whole numbers, exact below 1000 and to three digits above: at most a few thousand entries.

    Exact at any length: the sum, the longest, how many are `at_longest`, and how many are `over` the `limit`.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.counts: Counter[int] = Counter()
        self.limit = limit
        self.total = self.count = self.longest = self.at_longest = self.over = 0

    def add(self, length: int) -> None:
        """Count one length."""
        self.total, self.count = self.total + length, self.count + 1
        self.over += self.limit is not None and length > self.limit
        if length > self.longest:
            self.longest, self.at_longest = length, 0
        self.at_longest += length == self.longest
        digits = len(str(length)) - 3
        self.counts[length if digits <= 0 else round(length, -digits)] += 1

    def percentile(self, share: float) -> int:
        """Give the smallest length that at least `share` of all do not exceed; 0 where there are none."""
        return min(_percentile(self.counts, share), self.longest)

    def to_dict(self) -> dict[str, Any]:
        """Give count, mean, percentiles and the longest."""
        shares = {f"p{share}": self.percentile(share / 100) for share in (1, 10, 50, 90, 99)}
        mean = round(self.total / self.count, 1) if self.count else 0.0
        return {"count": self.count, "mean": mean, **shares, "max": self.longest}


def _percentile(counts: Mapping[int, int], share: float) -> int:
    seen, of = 0, sum(counts.values())
    for value in sorted(counts):
        seen += counts[value]
        if seen >= share * of:
            return value
    return 0


class Top:
    """The most frequent of many names (Misra and Gries 1982): a count is too low by at most `error`."""

    def __init__(self, size: int = 4096) -> None:
        self.size, self.counts, self.error, self.total = size, Counter[str](), 0, 0

    def add(self, name: str) -> None:
        """Count one name; now and then forget the rarest."""
        self.counts[name] += 1
        self.total += 1
        if len(self.counts) >= 2 * self.size:
            floor = sorted(self.counts.values(), reverse=True)[self.size]
            self.error += floor
            self.counts = Counter({name: count - floor for name, count in self.counts.items() if count > floor})

    def to_dict(self, shown: int = 10) -> dict[str, Any]:
        """Give how many names there are (None where too many to know), and the most frequent."""
        distinct = None if self.error else len(self.counts)
        return {
            "named": self.total,
            "distinct": distinct,
            "top": dict(self.counts.most_common(shown)),
            "error": self.error,
        }


class Same:
    """How many of many texts are the same: 8 bytes of a hash for each, so that chance finds two of a billion alike."""

    def __init__(self) -> None:
        self.hashes = array("Q")

    def add(self, text: str) -> None:
        """Count one text."""
        self.hashes.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))

    def to_dict(self) -> dict[str, int]:
        """Give how many there are, how many different ones, and how often the most frequent one stands there."""
        values = numpy.sort(numpy.frombuffer(self.hashes, dtype=numpy.uint64)) if self.hashes else numpy.zeros(0)
        starts = numpy.flatnonzero(numpy.concatenate(([True], values[1:] != values[:-1]))) if len(values) else values
        largest = int(numpy.diff(numpy.concatenate((starts, [len(values)]))).max()) if len(values) else 0
        return {
            "count": len(values),
            "distinct": len(starts),
            "repeated": len(values) - len(starts),
            "largest": largest,
        }


@dataclass
class Sample(Generic[T]):
    """A few of many, each with the same chance (reservoir sampling, Vitter 1985), the same at every run."""

    size: int
    kept: list[T]
    seen: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(0)

    def add(self, item: T) -> None:
        """Keep the item, or not."""
        self.seen += 1
        if len(self.kept) < self.size:
            self.kept.append(item)
        elif (place := self._random.randrange(self.seen)) < self.size:
            self.kept[place] = item


def bars(counts: Mapping[int, int], wanted: int = 10) -> list[tuple[str, int]]:
    """Group whole numbers into at most about `wanted` equally wide classes: (label, count), lowest first.

    Where a hundredth lies far above all others, it has one open class at the end.
    """
    if not counts:
        return []
    low, high, usual = min(counts), max(counts), _percentile(counts, 0.99)
    if high > 2 * usual:
        far = sum(count for value, count in counts.items() if value > usual)
        below = bars({value: count for value, count in counts.items() if value <= usual}, wanted)
        return [*below, (f"above {usual}", far)]
    width = _round_width((high - low) / wanted)
    groups: Counter[int] = Counter()
    for value, count in counts.items():
        groups[value // width] += count
    return [(_label(group, width), groups[group]) for group in range(low // width, high // width + 1)]


def _round_width(least: float) -> int:
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= least:
                return step * size
        size *= 10


def _label(group: int, width: int) -> str:
    return str(group) if width == 1 else f"{group * width}-{(group + 1) * width - 1}"


def share(part: int, of: int) -> float:
    """Give `part / of`, 0 where there is nothing."""
    return part / of if of else 0.0
