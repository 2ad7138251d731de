"""What stops a PPO run: numbers that are not finite, and a first ratio that is not 1.

Every rank sees the same totals, so all stop together; the last checkpoint stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_pipeline.errors import TrainingError
from rlhf_pipeline.ppo.masked import Reduce

RATIO_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5}
COARSE_RATIO_TOLERANCE = 1e-2
"""For bf16 and fp16, and for float32 whose products or forward pass run in reduced precision."""


def require_finite(step: int, reduce: Reduce, **tensors: Tensor) -> None:
    """Raise TrainingError when any number of `tensors` on any rank is not finite; `reduce` sums over ranks."""
    wrong = reduce(torch.stack([(~torch.isfinite(tensor)).sum() for tensor in tensors.values()]))
    for name, count in zip(tensors, wrong.tolist(), strict=True):
        if count:
            raise TrainingError(
                f"step {step}: {count} numbers of `{name}` are not finite; the last checkpoint is kept. "
                "Lower learning_rate or max_grad_norm, or raise kl_coef, and run the same command again"
            )


def require_scores(step: int, scores: Tensor, names: list[str]) -> None:
    """Raise TrainingError naming the reward function behind the first score that is no number: (B, functions)."""
    for name, column in zip(names, scores.T, strict=True):
        wrong = torch.nonzero(~torch.isfinite(column))
        if len(wrong):
            row = int(wrong[0])
            raise TrainingError(
                f"step {step}: reward function `{name}` gave {column[row].item()} (None counts as nan) for completion "
                f"{row} of the rollout; return a finite number for every completion"
            )


def require_first_ratio(step: int, mean_abs_log_ratio: float, dtype: torch.dtype, *, autocast: bool) -> None:
    """Raise TrainingError unless the first minibatch of a rollout has the log-probabilities it was sampled with.

    `mean_abs_log_ratio` is against log-probabilities that the training engine recomputed, in nats a token.
    """
    exact = not autocast and torch.get_float32_matmul_precision() == "highest"
    tolerance = RATIO_TOLERANCE.get(dtype, COARSE_RATIO_TOLERANCE) if exact else COARSE_RATIO_TOLERANCE
    if not mean_abs_log_ratio <= tolerance:
        raise TrainingError(
            f"step {step}: on the first minibatch of a rollout the mean |log ratio| is {mean_abs_log_ratio:.2e}, above "
            f"{tolerance:.0e} for {dtype}; the policy in training is not the one that was sampled (dropout, another "
            "dtype, or weights changed in between?)"
        )
