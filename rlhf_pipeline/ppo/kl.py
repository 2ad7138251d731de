"""The distance of the policy from its reference, from log-probabilities of sampled tokens.

In: log-probabilities of the same tokens under both, (B, C), at the sampling temperature. Left out for now: the k2
and k3 estimators and the adaptive controller.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) of every token as logp - ref_logp, in nats: (B, C).

    Unbiased and of either sign; the estimator of Ziegler et al. 2019 and InstructGPT (Ouyang et al. 2022).
    """
    return logprobs - ref_logprobs


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Sum the k1 estimate over the True positions of `mask`: (B,), nats a completion."""
    return torch.where(mask, k1(logprobs, ref_logprobs), 0.0).sum(dim=1)
