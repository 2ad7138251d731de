"""What reaches a reward model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_pipeline.scoring import RewardModel


def scored_rows(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids that reach any reward model's forward pass from now on, without padding."""
    rows: list[list[int]] = []
    forward = RewardModel._forward

    def spy(self: RewardModel, batch: Any) -> torch.Tensor:
        rows.extend(list(row) for row in batch)
        return forward(self, batch)

    monkeypatch.setattr(RewardModel, "_forward", spy)
    return rows
