"""Which rows of a group stay: the choice hangs on what the rows say, never on their order.

A row's rank comes from the hash of (seed, content); the lowest stays. Rows of one conversation may resemble each other,
as later turns repeat the earlier ones, and so may several people's rankings of one prompt: they stay together with the
one that wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Losers(NamedTuple):
    """`lost`: (n,), the rows that go; `to`: (n,), the row that each row's group keeps."""

    lost: Mask
    to: Rows


def shuffled(hashes: Hashes, seed: int) -> Hashes:
    """Hash hashes again with a seed: (n,) -> (n,)."""
    mixed = (hashes ^ np.uint64(seed % 2**64)) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)


def ranks(priority: Hashes) -> Rows:
    """Rank rows by priority, equal ones by their place: (n,) -> (n,), a permutation."""
    rank = np.empty(len(priority), dtype=np.int64)
    rank[np.argsort(priority, kind="stable")] = np.arange(len(priority))
    return rank


def all_but_best(group: NDArray[Any], rank: Rows, alive: Mask, together: Sequence[Hashes] = ()) -> Losers:
    """Keep the lowest rank of each group of living rows, and what is equal to it in one of `together` (0 is none)."""
    members = np.flatnonzero(alive)
    members = members[np.lexsort((rank[members], group[members]))]
    winner = members[_group_starts(group[members])]
    to = np.arange(len(group))
    to[members] = winner
    lost = alive & (to != np.arange(len(group)))
    for key in together:
        lost &= (key == 0) | (key != key[to])
    return Losers(lost, to)


def all_but_some(group: Hashes, rank: Rows, alive: Mask, most: int) -> Mask:
    """Keep at most `most` living rows of each group, those of lowest rank; group 0 is unknown and has no limit."""
    members = np.flatnonzero(alive & (group != 0))
    members = members[np.lexsort((rank[members], group[members]))]
    place = np.arange(len(members)) - _group_starts(group[members])
    lost = np.zeros(len(group), dtype=bool)
    lost[members[place >= most]] = True
    return lost


def _group_starts(ordered: NDArray[Any]) -> Rows:
    """Give for each element of a sorted array where the run of its value begins."""
    if not len(ordered):
        return np.zeros(0, dtype=np.int64)
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return np.repeat(first, np.diff(np.r_[first, len(ordered)]))
