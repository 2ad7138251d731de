"""Near-duplicate texts by MinHash and locality-sensitive hashing, in about 130 bytes of memory a row.

A text is the set of its character 5-grams; the similarity of two is the Jaccard index of their sets, estimated from
128 minima (Broder 1997) with a standard error of at most 0.044 (0.035 at 0.8). Of each minimum the lowest 8 bits are
kept, and the estimate corrected for chance (Li and Koenig 2010). Candidates share a band of minima (Leskovec et al.,
Mining of Massive Datasets, section 3.4); bands are 8-byte hashes in files, read one at a time.

Character n-grams, because prompts are short: one changed word among 18 leaves 0.5 of the word 3-grams but 0.8 of these.
Left out: paraphrases, and two texts that differ in one number only and so are counted as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_pipeline.data.curation.text import normalised

PERMUTATIONS = 128
SHINGLE = 5
RECALL = 0.99
"""Of pairs exactly as similar as the threshold, at least so many share a band."""
MAX_LEADERS = 256
"""Rows of one bucket that the others are compared with; what a more crowded bucket leaves out is counted."""
_BATCH = 4096
_GATHER = 1 << 16
_PIECE = 1 << 14
"""Shingles in memory at a time."""
_BITS = 256
_PRIME = np.uint64(0x9E3779B97F4A7C15)

Rows = NDArray[np.int64]


class Matches(NamedTuple):
    """Pairs of rows at least as similar as was asked: three arrays of one length."""

    leaders: Rows
    followers: Rows
    similarity: NDArray[np.float64]


class NearDuplicates:
    """An index of texts, numbered as they are added; `threshold` is the lowest similarity it will be asked for."""

    def __init__(self, threshold: float, scratch: Path) -> None:
        """`scratch`: an empty folder for the bands, 8 bytes for each row and band."""
        self.rows_per_band = rows_per_band(threshold)
        self.bands = PERMUTATIONS // self.rows_per_band
        self.crowded = 0
        self._files = [(scratch / f"band-{number:03}").open("w+b") for number in range(self.bands)]
        self._batch: list[list[int]] = []
        self._low: list[NDArray[np.uint8]] = []

    def __len__(self) -> int:
        """How many texts were added."""
        return sum(map(len, self._low)) + len(self._batch)

    def add(self, text: str) -> None:
        """Add the next text."""
        self._batch.append(signature(text))
        if len(self._batch) == _BATCH:
            self._flush()

    def matches(
        self, threshold: float, rank: Rows, leads: NDArray[np.bool_], follows: NDArray[np.bool_]
    ) -> Iterator[Matches]:
        """Give pairs (leader, follower) of similarity >= `threshold`, a pair perhaps more than once.

        `rank`, `leads`, `follows`: (rows,). In each bucket of each band the `leads` row of lowest rank is compared with
        all `follows` rows; those that match it leave the bucket, and the next one leads. So every follower that is in a
        bucket with a row like it is found, and for leads = follows the pairs connect every cluster. The pairs depend on
        ranks and texts alone. Followers left over after `MAX_LEADERS` leaders are added to `crowded`.
        """
        low = self._signatures()
        for file in self._files:
            file.seek(0)
            keys = np.fromfile(file, dtype=np.uint64)
            yield from self._within(keys, low, threshold, rank, leads, follows)

    def close(self) -> None:
        """Close the files of the bands."""
        for file in self._files:
            file.close()

    def _flush(self) -> None:
        if not self._batch:
            return
        minima = np.array(self._batch, dtype=np.uint64)
        self._low.append((minima % _BITS).astype(np.uint8))
        for number, file in enumerate(self._files):
            band_keys(minima, number, self.rows_per_band).tofile(file)
            file.flush()
        self._batch.clear()

    def _signatures(self) -> NDArray[np.uint8]:
        self._flush()
        if len(self._low) > 1:
            whole = np.empty((len(self), PERMUTATIONS), dtype=np.uint8)
            at = 0
            while self._low:
                part = self._low.pop(0)
                whole[at : at + len(part)] = part
                at += len(part)
            self._low = [whole]
        return self._low[0] if self._low else np.empty((0, PERMUTATIONS), dtype=np.uint8)

    def _within(
        self,
        keys: NDArray[np.uint64],
        low: NDArray[np.uint8],
        threshold: float,
        rank: Rows,
        leads: NDArray[np.bool_],
        follows: NDArray[np.bool_],
    ) -> Iterator[Matches]:
        """Give the pairs of one band, all buckets at once: round k compares every bucket with its k-th leader."""
        members = np.flatnonzero(leads | follows)
        members = members[np.lexsort((rank[members], ~leads[members], keys[members]))]
        for _ in range(MAX_LEADERS):
            members = _worth_comparing(members, keys, leads, follows)
            if not members.size:
                return
            first = _is_first(keys[members])
            leader = members[first][np.cumsum(first) - 1]
            asked = np.flatnonzero(~first & follows[members])
            similarity = estimate(low, leader[asked], members[asked])
            hit = asked[similarity >= threshold]
            if hit.size:
                yield Matches(leader[hit], members[hit], similarity[similarity >= threshold])
            first[hit] = True
            members = members[~first]
        self.crowded += int(follows[_worth_comparing(members, keys, leads, follows)].sum())


def signature(text: str) -> list[int]:
    """Give the 128 minima (32 bits each) of a text's character 5-grams."""
    from rensa import RMinHash

    plain = normalised(text)
    minhash = RMinHash(num_perm=PERMUTATIONS, seed=1)
    count = max(1, len(plain) - SHINGLE + 1)
    for first in range(0, count, _PIECE):
        minhash.update([plain[at : at + SHINGLE] for at in range(first, min(first + _PIECE, count))])
    minima: list[int] = minhash.digest()
    return minima


def rows_per_band(threshold: float) -> int:
    """Give the longest band with which a pair of this similarity shares one of them with probability `RECALL`."""
    enough = [r for r in range(1, 33) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= RECALL]
    return max(enough, default=1)


def band_keys(minima: NDArray[np.uint64], number: int, rows: int) -> NDArray[np.uint64]:
    """Hash band `number` of `minima` (n, 128) to 8 bytes: (n,)."""
    keys = np.full(len(minima), number, dtype=np.uint64)
    for column in range(number * rows, (number + 1) * rows):
        keys = (keys ^ minima[:, column]) * _PRIME
        keys ^= keys >> np.uint64(29)
    return keys


def estimate(low: NDArray[np.uint8], one: Rows, other: Rows) -> NDArray[np.float64]:
    """Estimate the Jaccard index of rows `one` and `other` (n,) from the low bits of their minima: (n,)."""
    agree = np.empty(len(one))
    for at in range(0, len(one), _GATHER):
        part = slice(at, at + _GATHER)
        agree[part] = (low[one[part]] == low[other[part]]).mean(axis=1)
    return (agree - 1 / _BITS) / (1 - 1 / _BITS)


def clusters(matches: Iterator[Matches], rows: int) -> Rows:
    """Join matched rows to clusters: (rows,), the same number for all of one cluster, its lowest row."""
    parent = list(range(rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for pairs in matches:
        for one, other in zip(pairs.leaders.tolist(), pairs.followers.tolist(), strict=True):
            low, high = sorted((root(one), root(other)))
            parent[high] = low
    return np.array([root(row) for row in range(rows)], dtype=np.int64)


def _is_first(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    return first


def _worth_comparing(
    members: Rows, keys: NDArray[np.uint64], leads: NDArray[np.bool_], follows: NDArray[np.bool_]
) -> Rows:
    """Keep the buckets that begin with a leader and have a follower behind it."""
    if not members.size:
        return members
    first = _is_first(keys[members])
    bucket = np.cumsum(first) - 1
    followed = np.bincount(bucket, weights=~first & follows[members]) > 0
    kept: Rows = members[(leads[members][first] & followed)[bucket]]
    return kept
