"""The k1 estimate of KL."""

from __future__ import annotations

import torch

from rlhf_pipeline.ppo.kl import k1, sequence_kl

POLICY = torch.tensor([[-1.0, -2.0, 9.0], [-0.5, -0.25, -0.25]], dtype=torch.float64)
REFERENCE = torch.tensor([[-1.5, -1.0, -9.0], [-0.5, -0.5, -1.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, True, True]])


def test_k1_by_hand() -> None:
    assert k1(POLICY, REFERENCE)[1].tolist() == [0.0, 0.25, 0.75]
    assert sequence_kl(POLICY, REFERENCE, MASK).tolist() == [-0.5, 1.0]


def test_kl_to_itself_is_zero() -> None:
    assert sequence_kl(POLICY, POLICY, MASK).tolist() == [0.0, 0.0]


def test_k1_is_unbiased() -> None:
    """The mean over samples of the policy is the exact divergence of the two distributions."""
    logits = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64), torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64)
    policy, reference = (x.log_softmax(-1) for x in logits)
    exact = (policy.exp() * (policy - reference)).sum()
    tokens = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(k1(policy[tokens], reference[tokens]).mean(), exact, atol=5e-3, rtol=0)
