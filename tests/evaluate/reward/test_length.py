"""Correlation of score and length within rankings."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_pipeline.evaluate.reward.length import within_correlation


def groups(*rows: list[float]) -> list[np.ndarray]:
    return [np.array(row, dtype=float) for row in rows]


def test_by_hand() -> None:
    """Centred: (-1, 1) with (-1, 1) and (-1, 0, 1) with (1, 0, -1) / 2: xy = 2 - 1, xx = 2 + 2, yy = 2 + .5."""
    x, y = groups([1, 3], [0, 1, 2]), groups([5, 7], [0.5, 0, -0.5])
    found = within_correlation(x, y, ["p", "q"])
    assert found["mean"] == pytest.approx(1 / (4 * 2.5) ** 0.5, abs=1e-4)
    assert (found["n"], found["clusters"]) == (5, 2)


def test_what_lies_between_prompts_does_not_count() -> None:
    """Long answers to one prompt all score high, yet within a prompt length and score are unrelated or opposed."""
    lengths, scores = groups([10, 12], [100, 102]), groups([1, 0], [9, 8])
    assert within_correlation(scores, lengths, ["p", "q"])["mean"] == -1


def test_the_interval_is_over_prompts() -> None:
    draw = np.random.default_rng(0)
    lengths = [draw.normal(size=2) for _ in range(200)]
    scores = [0.5 * one + draw.normal(size=2) for one in lengths]
    found = within_correlation(scores, lengths, range(200))
    low, high = found["ci95"]
    assert low < 0.5 / 1.25**0.5 < high
    assert high - low < 0.35


@pytest.mark.parametrize("same", [[[3, 3], [3, 3]], [[1, 1], [2, 2]]])
def test_lengths_that_never_differ_have_no_correlation(same: list[list[float]]) -> None:
    assert within_correlation(groups([1, 2], [0, 5]), groups(*same), ["p", "q"]) is None


def test_one_prompt_or_none_is_not_enough() -> None:
    assert within_correlation(groups([1, 2]), groups([1, 2]), ["p"]) is None
    assert within_correlation([], [], []) is None
