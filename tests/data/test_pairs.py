"""Pairs of a ranking, by hand."""

from __future__ import annotations

from rlhf_pipeline.data.pairs import compared_pairs, dropped, ordered_pairs
from rlhf_pipeline.records import Ranking


def test_a_ranking_of_three_has_three_pairs() -> None:
    assert ordered_pairs(Ranking("p", ["a", "b", "c"], [1, 0, 2])) == [(1, 0), (0, 2), (1, 2)]


def test_ties_and_equal_texts_are_dropped_and_counted() -> None:
    tied = Ranking("p", ["a", "b"], [0, 0])
    repeated = Ranking("q", ["a", "a", "b", "c"], [0, 1, 1, 2])
    assert ordered_pairs(tied) == []
    assert ordered_pairs(repeated) == [(0, 2), (0, 3), (1, 3), (2, 3)]
    assert dropped([tied, repeated]) == {"tie": 2, "same text": 1}


def test_ties_that_are_modelled_are_compared_unless_the_text_is_the_same() -> None:
    repeated = Ranking("q", ["a", "a", "b", "c"], [0, 1, 1, 1])
    assert compared_pairs(repeated, "skip") == ordered_pairs(repeated) == [(0, 2), (0, 3)]
    assert compared_pairs(repeated, "model") == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert dropped([repeated], "model") == {"same text": 1}


def test_the_same_text_finished_and_cut_off_is_a_pair() -> None:
    ranking = Ranking("p", ["a", "a"], [1, 0], finished=[False, True])
    assert ordered_pairs(ranking) == [(1, 0)]
    assert not dropped([ranking])
