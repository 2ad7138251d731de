"""Ratios by hand, from made-up runs."""

from __future__ import annotations

import pytest

from benchmarks.contestants import Run
from benchmarks.ratios import PHASES, Ratio, ratio_samples, require_equal_work, spread_of, summarise
from benchmarks.workload import CASES, Workload
from tests.benchmarks.runs import PEAK, SECONDS, make_run, make_update

HEADLINE = {
    "end_to_end_full",
    "end_to_end_full_tuned",
    "end_to_end_early",
    "end_to_end_early_tuned",
    "rollout_early",
    "peak_memory",
}


def all_runs() -> list[Run]:
    return [{"repeat": 0, **make_run(who, Workload(case))} for case in CASES for who in SECONDS]


def test_the_headline_is_theirs_over_ours() -> None:
    result = summarise(all_runs())
    assert set(result["ratio"]) == HEADLINE
    assert result["ratio"]["end_to_end_full"] == 3.0
    assert result["ratio"]["end_to_end_full_tuned"] == 2.0
    assert result["ratio"]["rollout_early"] == 3.0
    assert result["ratio"]["peak_memory"] == PEAK["ours"] / PEAK["trl"]
    assert result["further"]["end_to_end_full_float32"] == 2.0
    assert result["further"]["peak_memory_split"] == PEAK["ours"] / PEAK["trl_split"]
    assert set(result["spread"]) == {*result["ratio"], *result["further"]}


def test_ratios_of_contestants_that_did_not_run_are_left_out() -> None:
    result = summarise([run for run in all_runs() if run["contestant"] != "trl_split"])
    assert set(result["ratio"]) == HEADLINE
    assert not any("split" in name for name in result["spread"])


def test_warm_up_is_dropped_and_updates_are_paired() -> None:
    theirs = make_run("trl", Workload(), updates=[make_update(s) for s in (900.0, 30.0, 40.0)])
    ours = make_run("ours", Workload(), updates=[make_update(s) for s in (1.0, 10.0, 20.0)])
    assert ratio_samples([ours, theirs], Ratio("full")) == [3.0, 2.0]
    assert spread_of([3.0, 2.0, 7.0]) == {"min": 2.0, "median": 3.0, "max": 7.0, "samples": 3}


def test_a_rollout_is_generation_and_scoring() -> None:
    theirs = make_run("trl", Workload("early"), updates=[make_update(1.0), make_update(1.0, generate=5.0, score=3.0)])
    ours = make_run("ours", Workload("early"), updates=[make_update(1.0), make_update(1.0, generate=3.0, score=1.0)])
    assert ratio_samples([theirs, ours], Ratio("early", ("generate", "score"))) == [2.0]


def test_seconds_of_every_phase_and_what_is_in_none() -> None:
    found = summarise(all_runs())["contestants"]
    assert set(found) == set(SECONDS)
    assert found["ours"]["full"]["seconds"] == 10.0
    assert found["ours"]["full"]["other"] == pytest.approx(1.0)
    assert {*PHASES, "seconds", "other", "mean_tokens", "peak_rss_mib"} == set(found["ours"]["full"])
    assert found["ours"]["early"]["mean_tokens"] == 25.6


def test_unequal_work_is_refused() -> None:
    longer = make_run("ours", Workload(), updates=[make_update(1.0, mean_tokens=60.0)])
    with pytest.raises(ValueError, match=r"full: completions of 60\.00 to 64\.00 tokens"):
        require_equal_work([longer, make_run("trl", Workload())])
