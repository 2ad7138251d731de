"""The side a row is on, train or eval, by its user, its prompt or its conversation.

A row's side hangs on the seed and its own key alone (`data.splits.position`), so it never changes as rows are added.
What a side may not share with the other is settled by setting training rows aside, never by moving rows.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from rlhf_pipeline.data.curation.groups import Hashes, Losers, Mask, Rows
from rlhf_pipeline.data.curation.near_duplicates import NearDuplicates
from rlhf_pipeline.data.splits import opening, position
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record

SplitBy = Literal["user", "prompt", "conversation"]


def is_held_out(record: Record, where: str, by: SplitBy, fraction: float, seed: int) -> bool:
    """Say whether a record is evaluated on. Raises DataError where it has no user and `by` is user.

    `prompt`: by the first message that the user wrote, like the stages' own split, which this is with the same seed
    and fraction but for conversations whose rows open in several ways. `conversation`: by its id, or where it has none
    by the same first message.
    """
    assert isinstance(record, Demonstration | Ranking | Prompt | Document)
    key = opening(record)
    if by == "user":
        if record.user is None:
            raise DataError(f"{where}: no `user`, so no side for --split_by user; pass --split_by prompt")
        key = f"user {record.user}"
    elif by == "conversation" and record.conversation is not None:
        key = f"conversation {record.conversation}"
    return position(key, seed) < fraction


def shared_with(key: Hashes, held: Mask, train: Mask) -> Losers:
    """Find the training rows whose key, unless it is 0, a held-out row has too: which they are, and that row."""
    numbers = np.flatnonzero(held & (key != 0))
    to = np.full(len(key), -1, dtype=np.int64)
    if len(numbers):
        values, first = np.unique(key[numbers], return_index=True)
        at = np.minimum(np.searchsorted(values, key), len(values) - 1)
        same = train & (values[at] == key)
        to[same] = numbers[first][at][same]
    return Losers(to >= 0, to)


def like_held_out(held: Mask, train: Mask, near: NearDuplicates, threshold: float, rank: Rows) -> Losers:
    """Find the training rows that resemble a held-out row: which they are, and one that they resemble."""
    to = np.full(len(held), -1, dtype=np.int64)
    for pairs in near.matches(threshold, rank, leads=held, follows=train):
        to[pairs.followers] = pairs.leaders
    return Losers(to >= 0, to)
