"""The table has every kind and method, and simulated prompts share their fate as asked."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.interval_coverage import KINDS, METHODS, SHARES, coverage, main
from rlhf_pipeline.evaluate.statistics import Estimate


def test_the_table_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--runs", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(KINDS) * len(SHARES) * len(METHODS)
    assert {line.count("|") for line in lines} == {9}


def test_pairs_of_a_prompt_are_correlated_as_asked() -> None:
    seen = []

    def keep(values: np.ndarray, labels: list[int]) -> Estimate:
        seen.append(values.reshape(50, 2))
        return Estimate(0.5, 0.0, 1.0, len(values), len(set(labels)))

    assert coverage(keep, 50, 2, 0.6, 0.7, runs=400) == (1, 0)
    one, other = np.concatenate(seen).T
    assert one.mean() == pytest.approx(0.7, abs=0.02)
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(0.6, abs=0.02)


def test_the_bootstrap_of_few_is_sure_of_too_much() -> None:
    covered, no_width = coverage(METHODS["bootstrap"], 10, 1, 0.0, 0.9, runs=300)
    assert covered < 0.7 and no_width > 0.3
