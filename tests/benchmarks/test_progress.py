"""How long is left, by hand."""

from __future__ import annotations

import pytest

from benchmarks.progress import Progress
from benchmarks.workload import Workload
from tests.benchmarks.runs import make_run

RUN = make_run("ours", Workload(), process_seconds=60.0)


def after(runs: int, minutes: float) -> float:
    progress = Progress(4, repeats=3, minutes=minutes)
    for _ in range(runs):
        progress.show(RUN)
    return progress.minutes_left()


def test_the_rest_takes_as_long_as_the_average() -> None:
    assert after(3, minutes=float("inf")) == pytest.approx(9)


def test_no_more_repeats_than_there_is_time_for() -> None:
    assert after(3, minutes=6) == pytest.approx(3)
    assert after(3, minutes=2) == pytest.approx(1)  # this repeat is finished all the same
    assert after(12, minutes=100) == 0
