"""Counts of words and sparse matrices, against what numpy says of the same in full."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf_pipeline.evaluate.reward import words
from rlhf_pipeline.evaluate.reward.words import Sparse, count_words


def random_matrix(seed: int, rows: int, columns: int) -> tuple[Sparse, np.ndarray]:
    """A matrix of which a tenth of the rows, the first and the last among them, are empty; and the same in full."""
    draw = np.random.default_rng(seed)
    full = draw.normal(size=(rows, columns)) * (draw.random((rows, columns)) < 0.3)
    full[draw.random(rows) < 0.1] = 0
    full[[0, -1]] = 0
    row, column = np.nonzero(full)
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))])
    return Sparse(start, column.astype(np.int32), full[row, column], columns), full


@pytest.mark.parametrize("chunk", [1, 7, 1_000_000])
@pytest.mark.parametrize("seed", range(3))
def test_products_are_those_of_the_full_matrix(monkeypatch: pytest.MonkeyPatch, chunk: int, seed: int) -> None:
    monkeypatch.setattr(words, "CHUNK", chunk)
    sparse, full = random_matrix(seed, 40, 13)
    right, left = np.random.default_rng(9).normal(size=13), np.random.default_rng(8).normal(size=40)
    assert sparse.times(right) == pytest.approx(full @ right)
    assert sparse.transposed.times(left) == pytest.approx(full.T @ left)


def test_nothing_is_no_special_case() -> None:
    counts = count_words(["", "a", ""])
    assert counts.features([]).times(np.zeros(0)).tolist() == [0, 0, 0]
    assert counts.features(["unknown"]).times(np.ones(1)).tolist() == [0, 0, 0]
    assert count_words([]).most_frequent(np.array([], dtype=np.int64), 5, 1) == []


def test_features_are_logs_of_counts() -> None:
    counts = count_words(["Cat cat dog.", "dog bird", "once"])
    features = counts.features(["dog", "cat", "."])
    by_word = [features.times(np.eye(3)[column]).tolist() for column in range(3)]
    assert by_word == [
        pytest.approx([math.log(2), math.log(2), 0]),
        pytest.approx([math.log(3), 0, 0]),
        pytest.approx([math.log(2), 0, 0]),
    ]


def test_words_are_chosen_by_how_many_of_the_texts_they_are_in() -> None:
    counts = count_words(["b b b b a", "a c", "c d", "d d d", "e e"])
    assert counts.most_frequent(np.arange(4), most=5, least=2) == ["a", "c", "d"]
    assert counts.most_frequent(np.arange(4), most=2, least=1) == ["a", "c"]
    assert counts.most_frequent(np.array([2, 3]), most=5, least=1) == ["d", "c"]
