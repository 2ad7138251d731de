"""Losses of comparisons by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlhf_pipeline.ranking.losses import centring, comparison_losses, group_means, group_sums, owners


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss(difference: float, margin: float = 0.0, tied: bool = False, smoothing: float = 0.0) -> float:
    return comparison_losses(double(difference), double(margin), torch.tensor([tied]), smoothing).item()


def test_ordered_pair() -> None:
    assert loss(0) == pytest.approx(math.log(2))
    assert loss(2) == pytest.approx(math.log(1 + math.exp(-2)))
    assert loss(2, margin=3) == pytest.approx(math.log(1 + math.exp(1)))


def test_tie_is_half_a_win_each_way() -> None:
    assert loss(0, tied=True) == pytest.approx(math.log(2))
    assert loss(3, tied=True) == pytest.approx(loss(-3, tied=True)) == pytest.approx((loss(3) + loss(-3)) / 2)
    assert loss(3, tied=True, smoothing=0.2) == loss(3, tied=True)  # a tie turned round is a tie


@pytest.mark.parametrize("difference", [-2.0, -0.1, 0.0, 1.5])
def test_tie_has_the_gradient_of_davidsons_model_with_rare_ties(difference: float) -> None:
    """Davidson: P(tie) = nu sqrt(p q) / (p + q + nu sqrt(p q)), where p = exp(score) of one and q of the other."""
    ours, davidson = double(difference).requires_grad_(), double(difference).requires_grad_()
    comparison_losses(ours, double(0), torch.tensor([True])).sum().backward()
    nu, root = 1e-9, torch.exp(davidson / 2)
    (-torch.log(nu * root / (torch.exp(davidson) + 1 + nu * root))).sum().backward()
    assert ours.grad is not None and davidson.grad is not None
    torch.testing.assert_close(ours.grad, davidson.grad)


def test_smoothed_loss_is_least_where_the_model_doubts_as_much_as_the_label() -> None:
    """With 20 % wrong labels, the best difference is that of a 4 to 1 preference."""
    best = math.log(4)
    assert loss(1.0, smoothing=0.2) == pytest.approx(0.8 * loss(1.0) + 0.2 * loss(-1.0))
    assert loss(best, smoothing=0.2) < min(loss(best - 0.01, smoothing=0.2), loss(best + 0.01, smoothing=0.2))


def test_far_apart_scores_stay_finite() -> None:
    assert loss(-1e6, smoothing=0.1) == pytest.approx(9e5)
    assert loss(1e6) == 0.0


def test_centring_squares_the_sum() -> None:
    assert centring(double(1, -1), double(2, 1)).tolist() == [9, 0]


def test_groups_of_different_size() -> None:
    counts = torch.tensor([1, 3, 2])
    values = double(5, 1, 2, 3, 4, 6)
    assert owners(counts).tolist() == [0, 1, 1, 1, 2, 2]
    assert group_sums(values, counts).tolist() == [5, 6, 10]
    assert group_means(values, counts).tolist() == [5, 2, 5]
