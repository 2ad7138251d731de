"""Exponents and growth by hand."""

from __future__ import annotations

import pytest

from benchmarks.scaling import EARLY, LONG, exponent, fit, growth
from benchmarks.workload import Workload
from tests.benchmarks.runs import make_run, make_update


def test_a_square_law_has_exponent_two() -> None:
    assert exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)
    assert exponent([64, 512], [7, 7]) == pytest.approx(0)


def test_sizes_are_fitted_without_warm_up() -> None:
    runs = [
        make_run("ours", Workload(prompts=n), updates=[make_update(s) for s in (9.0, n / 8, n / 8)])
        for n in (64, 128, 512)
    ]
    assert fit("prompts", runs) == {"sizes": [64, 128, 512], "seconds": [8.0, 16.0, 64.0], "exponent": 1.0}


def test_growth_compares_two_updates() -> None:
    updates = [make_update(1.0, rss_mib=1000.0 + n) for n in range(1, LONG + 1)]
    found = growth(make_run("ours", Workload(), updates=updates))
    assert found[f"after_{EARLY}_mib"] == 1005.0
    assert found[f"after_{LONG}_mib"] == 1050.0
    assert found["growth"] == pytest.approx(1050 / 1005, abs=1e-3)
