"""Pairs of a ranking, by hand."""

from __future__ import annotations

from rlhf_pipeline.data.pairs import Pair, dropped, pairs
from rlhf_pipeline.records import Ranking


def test_a_ranking_of_three_has_three_pairs() -> None:
    ranking = Ranking("p", ["a", "b", "c"], [1, 0, 2], finished=[True, False, True])
    assert pairs([ranking]) == [
        Pair("p", "b", "a", False, True, 0),
        Pair("p", "a", "c", True, True, 0),
        Pair("p", "b", "c", False, True, 0),
    ]


def test_ties_and_equal_texts_are_dropped_and_counted() -> None:
    rankings = [Ranking("p", ["a", "b"], [0, 0]), Ranking("q", ["a", "a", "b", "c"], [0, 1, 1, 2])]
    assert [(pair.chosen, pair.rejected, pair.group) for pair in pairs(rankings)] == [
        ("a", "b", 1),
        ("a", "c", 1),
        ("a", "c", 1),
        ("b", "c", 1),
    ]
    assert dropped(rankings) == {"tie": 2, "same text": 1}


def test_the_same_text_finished_and_cut_off_is_a_pair() -> None:
    ranking = Ranking("p", ["a", "a"], [1, 0], finished=[False, True])
    assert pairs([ranking]) == [Pair("p", "a", "a", True, False, 0)]
    assert not dropped([ranking])


def test_nothing_from_nothing() -> None:
    assert (pairs([]), dropped([])) == ([], {})
