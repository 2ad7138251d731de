"""Rankings as flat tables, by hand."""

from __future__ import annotations

from tests.evaluate.reward.rankings import pairs_of, ranking


def test_pairs_ties_and_distance_by_hand() -> None:
    pairs = pairs_of(ranking("p", ["a", "b", "c", "d"], [5, 0, 5, 9]))
    assert [answer.completion for answer in pairs.answers] == ["a", "b", "c", "d"]
    found = list(zip(pairs.better.tolist(), pairs.worse.tolist(), pairs.distance.tolist(), strict=True))
    assert found == [(1, 0, 1), (0, 3, 1), (1, 2, 1), (1, 3, 2), (2, 3, 1)]
    assert pairs.ties.tolist() == [[0, 2]]
    assert pairs.ranking.tolist() == [0] * 5


def test_an_answer_that_two_labellers_ranked_is_one_answer() -> None:
    pairs = pairs_of(ranking("p", ["a", "b"]), ranking("p", ["b", "a"]), ranking("q", ["a", "b"]))
    assert pairs.places == [[0, 1], [1, 0], [2, 3]]
    assert len(pairs.answers) == 4
    assert pairs.clusters == ["p", "p", "q"]


def test_the_end_is_part_of_an_answer() -> None:
    """The same text finished and cut off are two answers, and a pair."""
    pairs = pairs_of(ranking("p", ["a", "a"], finished=[True, False]))
    assert [answer.finished for answer in pairs.answers] == [True, False]
    assert (pairs.better.tolist(), pairs.worse.tolist(), pairs.same_text) == ([0], [1], 0)


def test_equal_texts_are_counted_and_no_pairs() -> None:
    pairs = pairs_of(ranking("p", ["a", "a", "b"]))
    assert pairs.same_text == 1
    assert (pairs.better.tolist(), pairs.worse.tolist()) == ([0, 0], [1, 1])
    assert len(pairs.answers) == 2


def test_a_conversation_is_one_cluster() -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    later = [*turns, {"role": "user", "content": "and?"}]
    pairs = pairs_of(ranking(turns[:1], ["a", "b"]), ranking(later, ["c", "d"]))
    assert pairs.clusters == ["hi", "hi"]


def test_lengths_are_characters_of_the_completion() -> None:
    pairs = pairs_of(ranking("prompt", [[{"role": "assistant", "content": "four"}], "sixteen"]))
    assert pairs.lengths().tolist() == [4, 7]


def test_nothing_but_ties_gives_empty_tables() -> None:
    pairs = pairs_of(ranking("p", ["a", "b"], [1, 1]))
    assert (len(pairs.better), pairs.ties.tolist(), pairs.clusters) == (0, [[0, 1]], [])
