"""Masked statistics: by hand, blind to what stands outside the mask, and the same however the batch is split."""

from __future__ import annotations

import torch

from rlhf_pipeline.ppo.masked import last_index, masked_mean, masked_sum, moments, whiten

NAN = float("nan")
X = torch.tensor([[1.0, 2.0, NAN], [3.0, 6.0, NAN]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, True, False]])


def test_sum_mean_and_moments_by_hand_do_not_read_outside_the_mask() -> None:
    assert masked_sum(X, MASK) == 12
    assert masked_mean(X, MASK) == 3
    mean, variance = moments(X, MASK)
    assert (mean, variance) == (3, (4 + 1 + 0 + 9) / 4)


def test_mean_of_nothing_is_zero() -> None:
    assert masked_mean(X, torch.zeros_like(MASK)) == 0


def test_whitening_by_hand() -> None:
    centred = whiten(X, MASK, center=True)
    scale = 3.5**0.5
    expected = torch.tensor([[-2.0, -1.0, 0.0], [0.0, 3.0, 0.0]], dtype=torch.float64) / scale
    torch.testing.assert_close(centred, expected)
    kept = whiten(X, MASK, center=False)
    torch.testing.assert_close(masked_mean(kept, MASK), torch.tensor(3.0, dtype=torch.float64))


def test_whitening_over_two_ranks_equals_one() -> None:
    """Each 'rank' holds one row; the reduction hands it the other row's part of every sum, in the order asked for."""
    alone = whiten(X, MASK, center=True)
    recorded: list[list[torch.Tensor]] = []
    for row in range(2):
        sums: list[torch.Tensor] = []
        mine = X[row : row + 1], MASK[row : row + 1]
        first = torch.stack([masked_sum(*mine), mine[1].sum().double()])
        second = torch.stack([masked_sum((mine[0] - 3.0) ** 2, mine[1]), mine[1].sum().double()])
        sums += [first, second]
        recorded.append(sums)
    for row in range(2):
        others = iter(recorded[1 - row])
        part = whiten(X[row : row + 1], MASK[row : row + 1], center=True, reduce=lambda t, o=others: t + next(o))
        torch.testing.assert_close(part, alone[row : row + 1])


def test_extra_padding_changes_nothing() -> None:
    padded = torch.nn.functional.pad(X, (0, 5), value=NAN), torch.nn.functional.pad(MASK, (0, 5))
    assert torch.equal(whiten(*padded, center=True)[:, :3], whiten(X, MASK, center=True))


def test_last_index() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    assert last_index(mask).tolist() == [1, 2, -1]
