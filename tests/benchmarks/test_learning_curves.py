"""Reward at equal KL, by hand and on straight lines, and what is concluded from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.learning.curves import (
    COMPARISONS,
    GRID,
    area_of,
    common_grid,
    interval,
    read_curve,
    summarise,
    verdict,
)
from benchmarks.learning.report import table
from benchmarks.learning.task import STORIES
from tests.benchmarks.learning_runs import SLOPE, made_up, make_run

OURS_TO_TRL = COMPARISONS[0]


def points(*figures: tuple[float, float]) -> list[dict[str, float]]:
    return [{"kl_nats": kl, "reward": reward} for kl, reward in figures]


def test_a_curve_is_in_the_order_of_kl_and_averaged_with_its_neighbours() -> None:
    root, reward = read_curve(points((4.0, 3.0), (0.0, 0.0), (1.0, 3.0), (9.0, 6.0)))
    assert root.tolist() == [0.5, 1.0, 2.0, 2.5]
    assert reward.tolist() == [1.5, 2.0, 4.0, 4.5]


def test_an_estimate_of_kl_below_zero_counts_as_zero() -> None:
    root, _ = read_curve(points((-0.3, 0.0), (0.0, 0.0), (0.0, 0.0)))
    assert root.tolist() == [0.0, 0.0, 0.0]


def test_two_points_are_no_curve() -> None:
    with pytest.raises(ValueError, match="2 points are no curve"):
        read_curve(points((0.0, 0.0), (1.0, 1.0)))


def test_the_grid_ends_where_the_first_run_does() -> None:
    runs = [make_run("ours", 0.0, furthest=3.0), make_run("trl", 0.0, furthest=2.0)]
    curves = [read_curve(run["points"]) for run in runs]
    grid = common_grid(curves)
    assert len(grid) == GRID
    assert grid[0] == max(curve[0][0] for curve in curves)
    assert grid[-1] == curves[1][0][-1] < 2.0
    assert np.allclose(np.diff(grid), grid[1] - grid[0])


def test_runs_without_a_common_kl_are_refused() -> None:
    near, far = points(*[(0.0, 0.0)] * 3), points(*[(4.0, 0.0)] * 3)
    with pytest.raises(ValueError, match=r"one begins at 4\.00 nats, one ends at 0\.00"):
        common_grid([read_curve(near), read_curve(far)])


def test_the_area_is_a_mean_over_the_grid() -> None:
    assert area_of(np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 2.0])) == pytest.approx((1.0 * 1 + 2.0 * 2) / 3)


def test_an_interval_by_hand() -> None:
    """Both variances 1, four degrees of freedom, t = 2.776: 3 +- 2.776 * sqrt(2 / 3)."""
    low, high = interval([4.0, 5.0, 6.0], [1.0, 2.0, 3.0]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((3 - 2.2666, 3 + 2.2666), abs=0.01)
    assert interval([1.0], [0.0]) is None


@pytest.mark.parametrize(
    ("ci95", "said"),
    [
        ([0.1, 0.3], "ours is better"),
        ([-0.3, -0.1], "OURS IS WORSE"),
        ([-0.1, 0.3], "no difference beyond the seeds"),
        (None, "one seed, no verdict"),
    ],
)
def test_verdicts(ci95: list[float] | None, said: str) -> None:
    assert verdict(OURS_TO_TRL, {"ci95": ci95}) == said


def test_a_known_offset_is_found_at_every_kl_whatever_kl_was_sampled() -> None:
    found = summarise(made_up({"trl": 0.0, "ours_float32": 0.5, "ours": 0.5}))["world"]["comparisons"]
    better, alike = found["ours - trl"], found["ours - ours_float32"]
    assert better["area"]["difference"] == pytest.approx(0.5, abs=1e-3)
    assert [point["difference"] for point in better["at_kl"]] == pytest.approx([0.5] * 6, abs=1e-3)
    assert [point["ours"] for point in better["at_kl"]] == pytest.approx(
        [0.5 + SLOPE * point["kl_nats"] ** 0.5 for point in better["at_kl"]], abs=1e-3
    )
    assert better["verdict"] == "ours is better"
    assert (alike["area"]["difference"], alike["verdict"]) == (0.0, "bf16 and float32 alike within the seeds")


def test_more_kl_for_the_same_curve_is_no_better() -> None:
    """A run that only goes further along one curve gains reward, and nothing at equal KL."""
    runs = [make_run("trl", 0.0, seed, furthest=2.0) for seed in (1, 2)]
    runs += [make_run("ours", 0.0, seed, furthest=3.0) for seed in (1, 2)]
    task = summarise(runs)["world"]
    assert task["comparisons"]["ours - trl"]["area"]["difference"] == pytest.approx(0.0, abs=1e-3)
    assert max(task["ends"]["trl"]["reward"]) < min(task["ends"]["ours"]["reward"])


def test_a_worse_run_is_called_so_in_the_table() -> None:
    runs = made_up({"trl": 0.5, "ours": 0.0}) + made_up({"trl": 0.0, "ours": 0.0}, task=STORIES)
    result: dict[str, Any] = {"tasks": summarise(runs)}
    world, stories = (line for line in table(result).splitlines() if "all of it" in line)
    assert world.endswith("OURS IS WORSE")
    assert "-0.500 [-0.7" in world
    assert stories.endswith("no difference beyond the seeds")


def test_a_single_seed_has_no_interval_and_a_table_all_the_same() -> None:
    result: dict[str, Any] = {"tasks": summarise([make_run("trl", 0.0), make_run("ours", 0.1)])}
    assert "one seed, no verdict" in table(result)


def test_tasks_are_told_apart_by_name() -> None:
    runs = made_up({"trl": 0.0, "ours": 0.0}, task=replace(STORIES, updates=3))
    assert list(summarise(runs)) == ["stories"]
