"""The estimators of KL, and the coefficient that follows them."""

from __future__ import annotations

import pytest
import torch

from rlhf_pipeline.ppo.kl import ESTIMATORS, adapted, k1, k2, k3, sequence_kl

POLICY = torch.tensor([[-1.0, -2.0, 9.0], [-0.5, -0.25, -0.25]], dtype=torch.float64)
REFERENCE = torch.tensor([[-1.5, -1.0, -9.0], [-0.5, -0.5, -1.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, True, True]])


def two_distributions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of three tokens under two distributions, their exact divergence, and samples of the first."""
    logits = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64), torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64)
    policy, reference = (x.log_softmax(-1) for x in logits)
    exact = (policy.exp() * (policy - reference)).sum()
    tokens = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    return policy, reference, exact, tokens


def test_estimators_by_hand() -> None:
    assert k1(POLICY, REFERENCE)[1].tolist() == [0.0, 0.25, 0.75]
    assert k2(POLICY, REFERENCE)[1].tolist() == [0.0, 0.03125, 0.28125]
    torch.testing.assert_close(
        k3(POLICY, REFERENCE)[1], torch.tensor([0.0, 0.0288007830714, 0.2223665527410], dtype=torch.float64)
    )  # exp(-d) - 1 + d
    assert sequence_kl(POLICY, REFERENCE, MASK).tolist() == [-0.5, 1.0]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_kl_to_itself_is_zero(name: str) -> None:
    assert not ESTIMATORS[name](POLICY, POLICY).any()
    assert sequence_kl(POLICY, POLICY, MASK).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("estimator", [k1, k3])
def test_k1_and_k3_are_unbiased(estimator: object) -> None:
    """The mean over samples of the policy is the exact divergence of the two distributions."""
    policy, reference, exact, tokens = two_distributions()
    torch.testing.assert_close(estimator(policy[tokens], reference[tokens]).mean(), exact, atol=5e-3, rtol=0)


def test_k3_varies_less_than_k1_and_neither_it_nor_k2_is_negative() -> None:
    policy, reference, _, tokens = two_distributions()
    found = {name: f(policy[tokens], reference[tokens]) for name, f in ESTIMATORS.items()}
    assert found["k3"].var() < found["k1"].var()
    assert found["k1"].min() < 0
    assert found["k2"].min() >= 0
    assert found["k3"].min() >= 0


@pytest.mark.parametrize(
    ("kl_nats", "expected"),
    [(6.0, 1.0), (6.6, 1.0 + 0.1 * 0.1), (60.0, 1.0 + 0.2 * 0.1), (3.0, 1.0 - 0.2 * 0.1), (-1.0, 1.0 - 0.2 * 0.1)],
)
def test_the_coefficient_follows_the_clipped_error(kl_nats: float, expected: float) -> None:
    """Target 6 and a horizon of ten rollouts, as in Ziegler et al. 2019; the error counts up to a fifth."""
    assert adapted(1.0, kl_nats, target=6.0, horizon=10_000, completions=1_000) == pytest.approx(expected)


def test_the_coefficient_finds_the_target() -> None:
    """A policy whose KL falls as the coefficient grows ends at the target."""
    kl_coef = 0.01
    for _ in range(400):
        kl_coef = adapted(kl_coef, 2.0 / (0.1 + kl_coef), target=5.0, horizon=1_000, completions=256)
    assert 2.0 / (0.1 + kl_coef) == pytest.approx(5.0, rel=0.02)
