"""Texts as counts of words, counted once, and as sparse rows of a chosen vocabulary. Pure numpy.

A row is where it starts and ends in long flat arrays, so 50 different words of a text are 400 bytes, not 50 objects.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rlhf_pipeline.evaluate.statistics import Floats

Ints = NDArray[np.int64]
Small = NDArray[np.int32]

CHUNK = 1_000_000
"""Numbers multiplied at once, so that no product of a whole matrix lies in memory."""
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Sparse:
    """A matrix (R, C) of few values: those of row r are `values[start[r] : start[r + 1]]`, in columns `column[...]`."""

    start: Ints
    column: Small
    values: Floats
    width: int

    def times(self, weights: Floats) -> Floats:
        """Multiply with weights (C,), to (R,)."""
        rows = len(self.start) - 1
        found = np.zeros(rows)
        first = 0
        while first < rows:
            last = max(first + 1, int(np.searchsorted(self.start, self.start[first] + CHUNK, side="right")) - 1)
            piece = slice(self.start[first], self.start[last])
            starts, ends = self.start[first:last], self.start[first + 1 : last + 1]
            filled = np.flatnonzero(ends > starts)
            if len(filled):
                products = self.values[piece] * weights[self.column[piece]]
                found[first + filled] = np.add.reduceat(products, starts[filled] - piece.start)
            first = last
        return found

    @cached_property
    def transposed(self) -> Sparse:
        """The matrix (C, R)."""
        order = np.argsort(self.column, kind="stable")
        rows = np.repeat(np.arange(len(self.start) - 1, dtype=np.int32), np.diff(self.start))
        return Sparse(_starts(self.column, self.width), rows[order], self.values[order], len(self.start) - 1)


@dataclass(frozen=True)
class WordCounts:
    """How often which words are in M texts: of text m, `count[start[m] : start[m + 1]]` times `word[...]`."""

    vocabulary: list[str]
    start: Ints
    word: Small
    count: Small

    def most_frequent(self, texts: Ints, most: int, least: int) -> list[str]:
        """The `most` words that are in most of these texts, if in at least `least` of them; of equal ones by name."""
        chosen = np.zeros(len(self.start) - 1, dtype=bool)
        chosen[texts] = True
        found = np.bincount(self.word[np.repeat(chosen, np.diff(self.start))], minlength=len(self.vocabulary))
        candidates = np.flatnonzero(found >= least).tolist()
        ordered = sorted(candidates, key=lambda word: (-found[word], self.vocabulary[word]))
        return [self.vocabulary[word] for word in ordered[:most]]

    def features(self, words: Sequence[str]) -> Sparse:
        """log(1 + count) of each of the words: (M, words)."""
        column = {word: place for place, word in enumerate(words)}
        columns = np.array([column.get(word, -1) for word in self.vocabulary], dtype=np.int32)[self.word]
        known = columns >= 0
        row = np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))[known]
        start = _starts(row, len(self.start) - 1)
        return Sparse(start, columns[known], np.log1p(self.count[known], dtype=np.float64), len(words))


def count_words(texts: Iterable[str]) -> WordCounts:
    """Count the words of texts: runs of letters and digits, and every other sign, without regard to case."""
    index: dict[str, int] = {}
    start, word, count = array("q", [0]), array("i"), array("i")
    for text in texts:
        counts = Counter(_WORD.findall(text.lower()))
        word.extend(index.setdefault(one, len(index)) for one in counts)
        count.extend(counts.values())
        start.append(len(word))
    return WordCounts(list(index), *(np.array(one) for one in (start, word, count)))


def _starts(places: NDArray[np.integer], count: int) -> Ints:
    """Where each of `count` rows starts among entries that are sorted by row, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.bincount(places, minlength=count))])
