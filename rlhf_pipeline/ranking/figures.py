"""What is counted of every group, and the metrics that follow from any number of groups.

Sums are kept, not means of batches, so that every pair weighs the same however the groups were batched. A tie has no
right order: it counts for rewards and tokens only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_pipeline.ranking.losses import group_sums, owners

FIGURES = ("pairs", "right", "margin", "completions", "reward", "lowest", "highest", "tokens")
"""The columns of figures (G, 8): ordered pairs, those scored as ranked, the sum of their margins; completions, the sum
of their rewards, the lowest and the highest; tokens."""
_LOWEST, _HIGHEST = FIGURES.index("lowest"), FIGURES.index("highest")


@torch.no_grad()
def group_figures(scores: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Count, for a batch of G groups with `scores` (R,), the columns of `FIGURES`: (G, 8)."""
    ordered = ~batch["tied"]
    lead = scores[batch["better"]] - scores[batch["worse"]]
    pairs, rows = batch["comparisons"], batch["completions"]
    spread = torch.zeros(len(rows), dtype=scores.dtype, device=scores.device)
    reduced = {
        name: spread.scatter_reduce(0, owners(rows), scores, name, include_self=False) for name in ("amin", "amax")
    }
    columns = (
        group_sums(ordered.to(scores), pairs),
        group_sums(((lead > 0) & ordered).to(scores), pairs),
        group_sums(lead * ordered, pairs),
        rows.to(scores),
        group_sums(scores, rows),
        reduced["amin"],
        reduced["amax"],
        group_sums(batch["attention_mask"].sum(1).to(scores), rows),
    )
    return torch.stack(columns, dim=1)


def totals(figures: Tensor) -> Tensor:
    """Make one line of figures (G, 8), as of one large group: (1, 8), in float64."""
    table = figures.double()
    found = table.sum(0, keepdim=True)
    found[0, _LOWEST], found[0, _HIGHEST] = table[:, _LOWEST].min(), table[:, _HIGHEST].max()
    return found


def metrics(figures: Tensor) -> dict[str, float]:
    """Turn figures (G, 8) into TRL's metrics, without accuracy and margin where no pair is ordered."""
    total = dict(zip(FIGURES, totals(figures)[0].tolist(), strict=True))
    found = {
        "min_reward": total["lowest"],
        "mean_reward": total["reward"] / total["completions"],
        "max_reward": total["highest"],
    }
    if total["pairs"]:
        found |= {"accuracy": total["right"] / total["pairs"], "margin": total["margin"] / total["pairs"]}
    return found


def outcomes(figures: Tensor) -> tuple[list[float], list[int]]:
    """Give 1 for each pair that was scored as ranked and 0 for each other one, and the number of its group."""
    values: list[float] = []
    groups: list[int] = []
    for number, (pairs, right) in enumerate(figures[:, :2].round().int().tolist()):
        values += [1.0] * right + [0.0] * (pairs - right)
        groups += [number] * pairs
    return values, groups
