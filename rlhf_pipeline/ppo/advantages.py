"""Per-token rewards and advantages.

B completions, C completion tokens; a mask is True where a token counts. Left out: reward whitening, discounting over
wall time, anything that needs a model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_pipeline.ppo.masked import last_index


def token_rewards(kl: Tensor, scores: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Spread a rollout's reward over its tokens: -kl_coef * kl everywhere, plus the score on the last real token.

    `kl`: (B, C) nats a token. `scores`: (B,) one a completion. The last real token is the EOS where there is one,
    never the pad behind it. Returns (B, C), zero outside `mask`; a row without tokens gets no score.
    Ziegler et al. 2019, section 2.1; Ouyang et al. 2022, equation 2.
    """
    rewards = torch.where(mask, -kl_coef * kl, 0.0)
    last = last_index(mask)
    rows = torch.nonzero(last >= 0).squeeze(1)
    rewards[rows, last[rows]] += scores[rows].to(rewards.dtype)
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Estimate advantages with GAE and the returns they imply.

    `rewards`, `values`, `mask`: (B, C). `values[:, t]` is the value of the state before token t is chosen; what stands
    outside the mask is read as zero, and a completion ends at its last True. Returns advantages and returns, both
    (B, C), zero outside the mask, neither whitened. Schulman et al. 2016, equation 16:
    A_t = delta_t + gamma * lam * A_{t+1}, delta_t = r_t + gamma * V_{t+1} - V_t.
    Raises ValueError when shapes differ.
    """
    if not rewards.shape == values.shape == mask.shape:
        raise ValueError(
            f"rewards {tuple(rewards.shape)}, values {tuple(values.shape)} and mask {tuple(mask.shape)} must be equal"
        )
    advantages = torch.zeros_like(rewards)
    advantage = rewards.new_zeros(rewards.size(0))  # A_{t+1}
    next_value = rewards.new_zeros(rewards.size(0))  # V_{t+1}
    for t in reversed(range(rewards.size(1))):
        counts = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = torch.where(counts, delta + gamma * lam * advantage, advantage)
        next_value = torch.where(counts, values[:, t], next_value)
        advantages[:, t] = advantage
    advantages = torch.where(mask, advantages, 0.0)
    return advantages, torch.where(mask, advantages + values, 0.0)
