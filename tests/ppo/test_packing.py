"""Rows without padding on their left, and back."""

from __future__ import annotations

import torch

from rlhf_pipeline.ppo.packing import by_length, pack, unpack

IDS = torch.tensor([[0, 0, 7, 8, 9, 0], [4, 5, 6, 8, 0, 0]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]])


def test_by_hand() -> None:
    """Prompts (7) and (4, 5, 6), completions (8, 9) and (8): the widest row has four tokens, not six."""
    packed = pack(IDS, MASK, 3)
    assert packed.ids.tolist() == [[7, 8, 9, 0], [4, 5, 6, 8]]
    assert packed.predicts.tolist() == [[True, True, False, False], [False, False, True, False]]
    assert packed.labels.tolist() == [8, 9, 8]


def test_unpacking_puts_every_number_at_its_token() -> None:
    packed = pack(IDS, MASK, 3)
    assert unpack(packed.labels, MASK[:, 3:].bool()).tolist() == [[8, 9, 0], [8, 0, 0]]


def test_padding_on_either_side_changes_nothing() -> None:
    wide = [torch.nn.functional.pad(x, (3, 2)) for x in (IDS, MASK)]
    assert all(torch.equal(a, b) for a, b in zip(pack(*wide, 5), pack(IDS, MASK, 3), strict=True))


def test_rows_of_similar_length_share_a_piece() -> None:
    pieces = by_length(torch.tensor([3, 9, 5, 8, 1]), 2)
    assert [piece.tolist() for piece in pieces] == [[1, 3], [2, 0], [4]]
