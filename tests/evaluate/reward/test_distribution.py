"""Scores with and without EOS, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_pipeline.evaluate.reward.distribution import eos_and_prompt, summary


def test_summary_by_hand() -> None:
    found = summary(np.array([1.0, 2, 3, 4, 5]))
    assert (found["n"], found["mean"]) == (5, 3)
    assert found["sd"] == pytest.approx(2.5**0.5, abs=1e-4)
    assert found["quantiles"] == [1.2, 2, 3, 4, 4.8]
    assert summary(np.array([7.0]))["sd"] is None
    assert summary(np.array([])) is None


def test_shares_by_hand() -> None:
    ended, cut_off, alone = np.array([1.0, 2, 3, 4]), np.array([0.0, 2, 4, 1]), np.array([0.0, 0, 0, 9])
    found = eos_and_prompt(ended, cut_off, alone, ["p", "p", "q", "r"])
    assert found["share_higher_with_eos"]["mean"] == (1 + 0.5 + 0 + 1) / 4
    assert found["share_above_prompt"]["mean"] == 0.75
    assert found["share_above_prompt"]["clusters"] == 3
    assert [found[form]["mean"] for form in ("with_eos", "without_eos", "prompt_alone")] == [2.5, 1.75, 2.25]
