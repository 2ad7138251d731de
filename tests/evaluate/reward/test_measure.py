"""Measures put together on scores that are known: what the report holds, prints and draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlhf_pipeline.evaluate.report import print_sections
from rlhf_pipeline.evaluate.reward.comparisons import Comparisons
from rlhf_pipeline.evaluate.reward.distribution import eos_and_prompt
from rlhf_pipeline.evaluate.reward.measure import baselines, describe, measure
from rlhf_pipeline.evaluate.reward.plot import draw
from rlhf_pipeline.evaluate.reward.report import ahead_text, markdown, sections
from tests.evaluate.reward.rankings import pairs_of, planted, ranking


def perfect(pairs: Comparisons) -> np.ndarray:
    """Score every completion by its rank, turned round."""
    scores = np.zeros(len(pairs.answers))
    for one, places in zip(pairs.rankings, pairs.places, strict=True):
        scores[places] = [-float(rank) for rank in one.ranks]
    return scores


def report_of(names: list[str], data: dict[str, Comparisons], **changes: Any) -> dict[str, Any]:
    """A report as the command puts it together, of models that are always right."""
    found = {}
    for name, pairs in data.items():
        scores = perfect(pairs)
        eos = eos_and_prompt(scores + 1234.5, scores, scores - 1, range(len(scores)))
        base = baselines(pairs, None)
        rewards = {one: {"trained_on_it": False, **measure(pairs, scores, 1.0, base), "eos": eos} for one in names}
        found[name] = {
            "skipped_bad": 0,
            "skipped_long": 0,
            **describe(pairs, None, base),
            "rewards": rewards,
            **changes,
        }
    return {"run": "r", "ids": dict.fromkeys(names, "reward-1"), "train": None, "seconds": 1.0, "data": found}


def test_a_perfect_score_and_its_opposite() -> None:
    rows = [ranking(f"p{n}", ["good", "fair one", "bad"], [0, 1, 1], labeler="ann") for n in range(12)]
    pairs = pairs_of(*rows)
    right, wrong = (measure(pairs, sign * perfect(pairs), 1.0, {}) for sign in (1, -1))
    assert (right["accuracy"]["mean"], wrong["accuracy"]["mean"]) == (1, 0)
    assert (right["mean_difference"], right["mean_difference_on_ties"]) == (1, 0)
    assert right["labellers"]["each"]["ann"]["mean"] == 1
    assert right["score_length_correlation"]["mean"] == describe(pairs, None, {})["rank_length_correlation"]["mean"] < 0
    assert wrong["calibration"]["log_loss"]["mean"] > 0.6931 > right["calibration"]["log_loss"]["mean"]


def test_a_normalised_score_is_calibrated_as_it_was_trained() -> None:
    pairs = pairs_of(*planted(30, seed=0, signal=True))
    plain, normalised = (measure(pairs, perfect(pairs) / n, n, {}) for n in (1.0, 4.0))
    assert plain["calibration"] == normalised["calibration"]
    assert normalised["mean_difference"] == pytest.approx(plain["mean_difference"] / 4)


def test_a_model_is_compared_with_the_baselines_pair_by_pair() -> None:
    """Two scores that are right on the same half of 300 pairs, but for one, are known to be alike to within 2 %."""
    pairs = pairs_of(*planted(300, seed=0, signal=True))
    scores = perfect(pairs)
    scores[pairs.better[:150]] -= 2
    other = np.repeat([0.0, 1.0], 150)
    other[0] = 1
    found = measure(pairs, scores, 1.0, {"length": other, "bag_of_words": np.full(300, np.nan)})
    difference, own = found["ahead_of"]["length"], found["accuracy"]["ci95"]
    low, high = difference["ci95"]
    assert {name: difference[name] for name in ("mean", "n", "clusters")} == {
        "mean": -0.0033,
        "n": 300,
        "clusters": 300,
    }
    assert -0.02 < low < -0.0033 < 0 < high < 0.02 < (own[1] - own[0]) / 5
    assert found["ahead_of"]["bag_of_words"] is None


def test_being_ahead_is_worded() -> None:
    assert ahead_text({"mean": 0.021, "ci95": [-0.014, 0.05]}) == "+.02 [-.01, +.05]"
    assert ahead_text({"mean": -1, "ci95": [-1, 0.004]}) == "-1.00 [-1.00, +.00]"
    data = {"a": pairs_of(*planted(20, seed=0, signal=True)), "b": pairs_of(ranking("p", ["a", "b"]))}
    table = next(one for one in sections(report_of(["one"], data)) if one.title.startswith("Ahead of the baselines"))
    assert [row[0] for row in table.rows] == ["one vs length", "one vs bag of words"]
    assert table.rows[1][1].startswith("+.05 [-.") and table.rows[1][2] == "-"


def test_prompts_that_baselines_saw_are_counted() -> None:
    train, pairs = (pairs_of(*planted(count, seed=count, signal=True)) for count in (10, 14))
    assert describe(pairs, train, {})["shared_prompts"] == 10
    assert describe(pairs, None, {})["shared_prompts"] is None


def test_no_figure_is_cut_off_however_many_models_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    data = {f"a-long-name-{n}#eval": pairs_of(*planted(20, seed=n, signal=True)) for n in range(3)}
    print_sections(sections(report_of([f"a-run-with-a-long-name-{n}/reward" for n in range(4)], data)))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "1234.00" in printed and max(map(len, printed.splitlines())) <= 100


def test_what_was_seen_is_said() -> None:
    data = {"new.jsonl": pairs_of(*planted(20, seed=0, signal=True))}
    report = report_of(["one", "two"], data, shared_prompts=3)
    report["data"]["new.jsonl"]["rewards"]["two"]["trained_on_it"] = True
    note = next(iter(sections(report))).note
    assert note.endswith("NOT held out: the baselines saw 3 prompts of new.jsonl; two was trained on new.jsonl")
    assert "never saw" in next(iter(sections(report_of(["one"], data)))).note


def test_page_and_plot_take_what_has_no_labellers_and_no_baselines() -> None:
    data = {"tiny": pairs_of(ranking("p", ["a", "b"]))}
    report = report_of(["one"], data)
    page = markdown(report)
    assert "| one | 1.00 [.00, 1.00] |" in page and "| length | - |" in page
    assert "agreement with each other is unknown" not in page, "a table without rows is left out"
    assert draw(report).startswith(b"\x89PNG")
