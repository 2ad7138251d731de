"""Kappa and agreement by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_pipeline.evaluate.reward.agreement import between_labellers, kappa, verdicts, with_labellers
from tests.evaluate.reward.rankings import pairs_of, ranking


def test_kappa_by_hand_without_ties() -> None:
    """Eight of ten agree and chance is a half: (.8 - .5) / .5."""
    assert kappa([(1, 1)] * 5 + [(-1, -1)] * 3 + [(1, -1)] * 2) == 0.6


def test_kappa_does_not_depend_on_which_is_called_the_first() -> None:
    both = [(1, 1)] * 5 + [(1, -1)] * 2 + [(0, 0)] * 2 + [(0, -1)]
    turned = [(-a, -b) for a, b in both]
    assert kappa(both) == kappa(turned) == kappa([*both[:4], *turned[4:]])


def test_kappa_by_hand_with_ties() -> None:
    """One ties half the time, the other never: chance 0 * .5 + 1 * .5 / 2 = .25, agreement .5."""
    both = [(1, 0), (-1, 0), (1, 1), (-1, -1)]
    assert kappa(both) == pytest.approx((0.5 - 0.25) / 0.75, abs=1e-4)
    pooled_chance = 0.25**2 + 0.75**2 / 2
    assert kappa(both, pooled=True) == pytest.approx((0.5 - pooled_chance) / (1 - pooled_chance), abs=1e-4)


def test_kappa_where_nothing_can_be_said() -> None:
    assert kappa([]) is None
    assert kappa([(0, 0)] * 3) is None


def three_labellers() -> tuple:
    """Two prompts: ann and bob agree on the first and not on the second; cy ranks a third alone."""
    return (
        ranking("p", ["a", "b"], labeler="ann"),
        ranking("p", ["b", "a"], [1, 0], labeler="bob"),
        ranking("q", ["c", "d"], labeler="ann"),
        ranking("q", ["d", "c"], labeler="bob"),
        ranking("r", ["e", "f"], labeler="cy"),
        ranking("s", ["g", "h"]),
    )


def test_verdicts_turn_every_ranking_the_same_way_round() -> None:
    found = verdicts(pairs_of(*three_labellers()))
    assert found == {
        (0, 1): [("ann", 1), ("bob", 1)],
        (2, 3): [("ann", 1), ("bob", -1)],
        (4, 5): [("cy", 1)],
    }


def test_labellers_with_each_other() -> None:
    found = between_labellers(pairs_of(*three_labellers()))
    assert (found["labellers"], found["meetings"]) == (2, 2)
    assert (found["agreement"]["mean"], found["agreement"]["clusters"]) == (0.5, 2)
    assert found["kappa"] == 0
    assert found["by_two"] == [{"labellers": ["ann", "bob"], "n": 2, "agreement": 0.5, "kappa": 0.0}]


def test_ties_count_in_kappa_alone() -> None:
    rows = [*three_labellers(), ranking("q", ["c", "d"], [0, 0], labeler="dee")]
    found = between_labellers(pairs_of(*rows))
    assert found["meetings"] == 4
    assert found["agreement"]["n"] == 2
    two = {tuple(one["labellers"]): one for one in found["by_two"]}
    assert two["ann", "dee"]["agreement"] is None


def test_one_labeller_twice_is_no_agreement() -> None:
    rows = [ranking("p", ["a", "b"], labeler="ann"), ranking("p", ["b", "a"], labeler="ann")]
    assert between_labellers(pairs_of(*rows)) is None


def test_without_names_agreement_is_unknown() -> None:
    pairs = pairs_of(ranking("p", ["a", "b"]), ranking("p", ["b", "a"]))
    assert between_labellers(pairs) is None
    assert with_labellers(np.array([1.0, 0.0]), pairs) == {"each": {}, "on_shared": None}


def test_a_score_with_every_labeller() -> None:
    """It prefers a, c and f: right with ann twice, with bob once of two, wrong with cy; r is shared with nobody."""
    scores = np.array([1.0, 0, 1, 0, 0, 1, 1, 0])
    found = with_labellers(scores, pairs_of(*three_labellers()))
    assert {name: (one["mean"], one["n"]) for name, one in found["each"].items()} == {
        "ann": (1, 2),
        "bob": (0.5, 2),
        "cy": (0, 1),
    }
    assert (found["on_shared"]["mean"], found["on_shared"]["n"]) == (0.75, 4)
