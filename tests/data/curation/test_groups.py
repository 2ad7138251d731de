"""The choice within a group is by content, not by order; a conversation stays whole."""

from __future__ import annotations

import numpy as np

from rlhf_pipeline.data.curation.groups import all_but_best, all_but_some, ranks, shuffled

U = np.uint64
ALL = np.ones(6, dtype=bool)
RANK = np.array([5, 3, 4, 0, 1, 2])


def test_ranks_follow_priorities_and_break_ties_by_place() -> None:
    assert ranks(np.array([7, 9, 7, 1], dtype=U)).tolist() == [1, 3, 2, 0]


def test_another_seed_shuffles_otherwise() -> None:
    hashes = np.arange(1, 9, dtype=U)
    orders = {tuple(ranks(shuffled(hashes, seed)).tolist()) for seed in range(5)}
    assert len(orders) == 5
    assert len(set(shuffled(hashes, 0).tolist())) == 8


def test_the_lowest_rank_of_each_group_stays() -> None:
    lost, to = all_but_best(np.array([1, 1, 2, 1, 2, 3]), RANK, ALL)
    assert lost.tolist() == [True, True, True, False, False, False]
    assert to.tolist() == [3, 3, 4, 3, 4, 5]


def test_the_dead_neither_win_nor_lose() -> None:
    alive = np.array([True, True, True, False, True, True])
    lost, to = all_but_best(np.array([1, 1, 2, 1, 2, 3]), RANK, alive)
    assert lost.tolist() == [True, False, True, False, False, False]
    assert to.tolist() == [1, 1, 4, 3, 4, 5]


def test_a_conversation_stays_with_the_row_of_it_that_wins() -> None:
    conversation = np.array([8, 9, 0, 8, 0, 0], dtype=U)
    lost, _ = all_but_best(np.array([1, 1, 2, 1, 2, 3]), RANK, ALL, [conversation])
    assert lost.tolist() == [False, True, True, False, False, False]
    prompt = np.array([1, 2, 3, 2, 3, 4], dtype=U)
    lost, _ = all_but_best(np.array([1, 1, 2, 1, 2, 3]), RANK, ALL, [conversation, prompt])
    assert lost.tolist() == [False, False, False, False, False, False]


def test_at_most_so_many_of_a_user_and_the_unknown_are_free() -> None:
    user = np.array([4, 4, 4, 0, 0, 4], dtype=U)
    assert all_but_some(user, RANK, ALL, 2).tolist() == [True, False, True, False, False, False]
    assert all_but_some(user, RANK, np.array([True, False, True, True, True, True]), 2).tolist() == [
        True, False, False, False, False, False,
    ]  # fmt: skip


def test_nothing_at_all() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert all_but_best(none, none, none.astype(bool)).lost.tolist() == []
