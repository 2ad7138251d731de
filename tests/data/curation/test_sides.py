"""What a training row shares with a held-out one, by hand."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from rlhf_pipeline.data.curation.near_duplicates import NearDuplicates
from rlhf_pipeline.data.curation.sides import SplitBy, is_held_out, like_held_out, shared_with
from rlhf_pipeline.records import Demonstration, Document, Prompt
from tests.data.curation.test_near_duplicates import changed, sentence

KEY = np.array([5, 6, 5, 0, 0, 6], dtype=np.uint64)
HELD = np.array([True, False, False, True, False, False])


def test_a_key_that_a_held_out_row_has() -> None:
    lost, to = shared_with(KEY, HELD, ~HELD)
    assert lost.tolist() == [False, False, True, False, False, False]
    assert to.tolist() == [-1, -1, 0, -1, -1, -1]


def test_0_is_shared_with_nobody_and_nothing_held_out_shares_nothing() -> None:
    assert not shared_with(np.zeros(6, dtype=np.uint64), HELD, ~HELD).lost.any()
    assert not shared_with(KEY, np.zeros(6, dtype=bool), ~HELD).lost.any()


def test_rows_on_neither_side_share_nothing() -> None:
    train = ~HELD & (np.arange(6) != 2)
    assert not shared_with(KEY, HELD, train).lost.any()


def test_likeness_of_a_held_out_row(tmp_path: Path) -> None:
    with closing(NearDuplicates(0.8, tmp_path)) as near:
        for text in (sentence(0), sentence(1), changed(sentence(0), 1), sentence(2), changed(sentence(2), 1), "x"):
            near.add(text)
        lost, to = like_held_out(HELD, ~HELD, near, 0.8, np.arange(6))
    assert lost.tolist() == [False, False, True, False, True, False]
    assert to.tolist() == [-1, -1, 0, -1, 3, -1]


@pytest.mark.parametrize("by", ["prompt", "conversation"])
def test_a_side_is_the_same_for_every_kind_of_record(by: SplitBy) -> None:
    for text in map(str, range(30)):
        kinds = (Prompt(text), Demonstration(text, "a"), Document(text))
        assert len({is_held_out(record, "f:1", by, 0.5, 0) for record in kinds}) == 1


def test_a_user_is_on_one_side_whatever_they_ask() -> None:
    for user in map(str, range(30)):
        sides = {is_held_out(Prompt(str(n), user=user), "f:1", "user", 0.5, 0) for n in range(5)}
        assert len(sides) == 1


def test_a_larger_share_only_adds() -> None:
    rows = [Prompt(str(n)) for n in range(200)]
    small, large = ([is_held_out(row, "f:1", "prompt", share, 3) for row in rows] for share in (0.1, 0.4))
    assert sum(small) < sum(large)
    assert all(later for earlier, later in zip(small, large, strict=True) if earlier)
