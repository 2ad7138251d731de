"""The distance of the policy from its reference, and the coefficient that punishes it.

In: log-probabilities of the same sampled tokens under both, (B, C), at the sampling temperature. Left out: the exact
KL over the whole vocabulary, and a coefficient of its own for every token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Estimator = Callable[[Tensor, Tensor], Tensor]

HORIZON_CLIP = 0.2
"""How far one update's relative error counts, either way (Ziegler et al. 2019, section 2.2)."""


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) of every token as logp - ref_logp, in nats: (B, C).

    Unbiased and of either sign; the estimator of Ziegler et al. 2019 and InstructGPT (Ouyang et al. 2022).
    """
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimate it as half the square of logp - ref_logp: (B, C), never negative, biased, of low variance.

    Schulman 2020, "Approximating KL Divergence".
    """
    return 0.5 * (logprobs - ref_logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimate it as r - 1 - log r with r = ref_p / p: (B, C), never negative, unbiased, of low variance.

    Schulman 2020, "Approximating KL Divergence".
    """
    log_r = ref_logprobs - logprobs
    return torch.expm1(log_r) - log_r


ESTIMATORS: dict[str, Estimator] = {"k1": k1, "k2": k2, "k3": k3}


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Sum the k1 estimate over the True positions of `mask`: (B,), nats a completion."""
    return torch.where(mask, k1(logprobs, ref_logprobs), 0.0).sum(dim=1)


def adapted(kl_coef: float, kl_nats: float, *, target: float, horizon: float, completions: int) -> float:
    """Return the next KL coefficient of Ziegler et al. 2019, section 2.2, after a rollout of `completions`.

    kl_coef * (1 + clip(kl_nats / target - 1, -0.2, 0.2) * completions / horizon), with `kl_nats` and `target` in nats a
    completion; their gain of 0.1 is a horizon of ten rollouts.
    """
    error = min(max(kl_nats / target - 1, -HORIZON_CLIP), HORIZON_CLIP)
    return kl_coef * (1 + error * completions / horizon)
