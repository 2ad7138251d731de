"""Efficiency by hand, and one stage really timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.processes import STAGES, efficiency, prepare, seconds


def test_efficiency_by_hand() -> None:
    assert efficiency({1: 2.0, 2: 2.5, 4: 8.0}) == {1: 1.0, 2: 0.8, 4: 0.25}


@pytest.mark.distributed
def test_two_processes_are_timed(tmp_path: Path) -> None:
    words = prepare(tmp_path)
    assert set(words) == set(STAGES)
    assert 0 < seconds("sft", 2, words["sft"], tmp_path) < 60
