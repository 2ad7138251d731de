"""The scale of a critic's values: a reward model's offset and scale, and its weight in the reward, hold for its critic.

Left out: networks (`critic`, `shared`).
"""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

from rlhf_pipeline.normalization import Normalization
from rlhf_pipeline.sharding import gathered


class ScaledValues:
    """A critic's head, and the constant that is taken off all it gives."""

    head: nn.Linear
    offset: float = 0.0

    @torch.no_grad()
    def scaled(self, factor: float, less: float = 0.0) -> Self:
        """Multiply all values by `factor`, then take `less` off; returns itself."""
        with gathered([self.head.weight], write=True):
            self.head.weight.mul_(factor)
        self.offset = self.offset * factor + less
        return self

    def normalised(self, shift: Normalization) -> Self:
        """Make rewards of raw scores, as `shift` does; returns itself."""
        return self.scaled(1 / shift.scale, shift.offset / shift.scale)

    @property
    def shift(self) -> Normalization:
        """What makes a value of what the head gives: for a config.json."""
        return Normalization(self.offset)
