"""Several reward models, or several heads of one, that score together; and how their scores become one reward.

Coste et al. 2023 (Reward model ensembles help mitigate overoptimization) optimise against the mean of members, the
worst of them, or the mean less what they disagree by (there the variance, here its root, which has the unit of a
score). B completions, M members. Left out: training members (`stages.reward`), and loading them (`rewards`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reduction:
    """How the scores of members become one: their mean or the lowest, less `disagreement_coef` times `disagreement`."""

    kind: Literal["mean", "min"] = "mean"
    disagreement_coef: float = 0.0

    def __call__(self, scores: Tensor) -> Tensor:
        """Reduce the scores of members: (B, M) to (B,)."""
        reduced = scores.mean(dim=1) if self.kind == "mean" else scores.amin(dim=1)
        return reduced - self.disagreement_coef * disagreement(scores) if self.disagreement_coef else reduced


def disagreement(scores: Tensor) -> Tensor:
    """Measure by how much members differ on each completion: their standard deviation, (B, M) to (B,).

    The members are all there are, not a sample of more, so the sum of squares is divided by M; one alone gives zero.
    """
    return scores.std(dim=1, correction=0)


class Members:
    """Networks called as one: like a sequence classifier whose `logits` (B, M) are normalised scores of the members.

    `networks` are called like sequence classifiers, one label or head a member; member m's score is
    (logit - offsets[m]) / scales[m], over the networks in their order.
    """

    def __init__(self, networks: Sequence[Any], offsets: Sequence[float], scales: Sequence[float]) -> None:
        self.networks = tuple(networks)
        self.offsets, self.scales = tuple(offsets), tuple(scales)

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        device: torch.device = self.networks[0].device
        return device

    @property
    def config(self) -> Any:
        """The first network's config."""
        return self.networks[0].config

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Score right-padded rows (B, T): an object with `logits` (B, M)."""
        parts = [network(input_ids=input_ids, attention_mask=attention_mask).logits for network in self.networks]
        logits = torch.cat([part.float() for part in parts], dim=1)
        offsets, scales = (torch.tensor(numbers, device=logits.device) for numbers in (self.offsets, self.scales))
        return SimpleNamespace(logits=(logits - offsets) / scales)


class OneAdapter:
    """A classifier with several LoRA adapters over one base, called under one of them."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name

    @property
    def device(self) -> torch.device:
        """Where the base is."""
        device: torch.device = self.model.device
        return device

    @property
    def config(self) -> Any:
        """The base's config."""
        return self.model.config

    def __call__(self, **inputs: Tensor) -> Any:
        """Call the classifier under this adapter and its head."""
        self.model.set_adapter(self.name)
        return self.model(**inputs)
