"""Rewards and GAE, by hand and against the textbook sum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlhf_pipeline.ppo.advantages import gae, token_rewards

NAN = float("nan")


def doubles(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])


def test_score_lands_on_the_last_real_token_and_never_on_the_pad_behind_it() -> None:
    kl = doubles([0.5, -1.0, 2.0, NAN], [1.0, NAN, NAN, NAN])
    rewards = token_rewards(kl, torch.tensor([10.0, 20.0], dtype=torch.float64), MASK, kl_coef=0.1)
    torch.testing.assert_close(rewards, doubles([-0.05, 0.1, 9.8, 0.0], [19.9, 0.0, 0.0, 0.0]))


def test_a_row_without_tokens_gets_no_score() -> None:
    empty = torch.zeros(1, 3, dtype=torch.bool)
    assert token_rewards(doubles([1.0, 1.0, 1.0]), torch.ones(1).double(), empty, 0.5).tolist() == [[0.0, 0.0, 0.0]]


def test_gae_by_hand() -> None:
    """gamma 1, lambda 0.5. Row one: delta = (0-1+2, 0-2+4, 8-4) = (1, 2, 4); A_2 = 4, A_1 = 2+2 = 4, A_0 = 1+2 = 3."""
    rewards = doubles([0.0, 0.0, 8.0, NAN], [3.0, NAN, NAN, NAN])
    values = doubles([1.0, 2.0, 4.0, NAN], [1.0, NAN, NAN, NAN])
    advantages, returns = gae(rewards, values, MASK, gamma=1.0, lam=0.5)
    torch.testing.assert_close(advantages, doubles([3.0, 4.0, 4.0, 0.0], [2.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(returns, doubles([4.0, 6.0, 8.0, 0.0], [3.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.99, 0.0)])
def test_gae_is_the_discounted_sum_of_errors(gamma: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(1)
    length = 6
    rewards, values = torch.randn(2, 1, length, dtype=torch.float64, generator=generator)
    deltas = rewards + gamma * torch.cat([values[:, 1:], values.new_zeros(1, 1)], dim=1) - values
    expected = [sum((gamma * lam) ** k * deltas[0, t + k] for k in range(length - t)) for t in range(length)]
    advantages, returns = gae(rewards, values, torch.ones(1, length, dtype=torch.bool), gamma=gamma, lam=lam)
    torch.testing.assert_close(advantages[0], torch.stack(expected))
    torch.testing.assert_close(returns, advantages + values)


def test_lambda_one_gives_returns_that_ignore_the_critic() -> None:
    rewards = doubles([1.0, 2.0, 3.0])
    for values in (doubles([0.0, 0.0, 0.0]), doubles([5.0, -7.0, 9.0])):
        _, returns = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=1.0)
        torch.testing.assert_close(returns, doubles([6.0, 5.0, 3.0]))


def test_extra_padding_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(2)
    rewards, values = torch.randn(2, 2, 4, dtype=torch.float64, generator=generator)
    short = gae(rewards, values, MASK, gamma=1.0, lam=0.95)
    wide = [torch.nn.functional.pad(x, (0, 3), value=NAN) for x in (rewards, values)]
    padded = gae(*wide, torch.nn.functional.pad(MASK, (0, 3)), gamma=1.0, lam=0.95)
    for one, other in zip(short, padded, strict=True):
        assert torch.equal(one, other[:, :4])


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        gae(torch.zeros(1, 3), torch.zeros(1, 4), torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=1.0)
