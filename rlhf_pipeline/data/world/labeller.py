"""Simulated labellers: they read each dimension of an answer as the judge does, but misread it at a known rate.

Left out: boredom, taste, disagreement between people with different values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from rlhf_pipeline.data.world.judge import combine, judge_facts

if TYPE_CHECKING:
    from rlhf_pipeline.records import Prompt


@dataclass
class Labeller:
    """Rank answers; each dimension of each answer is read as its opposite (1 - x) with probability `error_rate`."""

    error_rate: float
    seed: int
    draw: Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Start the stream of errors."""
        self.draw = Random(f"labeller/{self.seed}")

    def rank(self, prompt: Prompt, texts: Sequence[str]) -> list[int]:
        """Return the rank of each text, 0 for the best; equal scores share a rank."""
        scores = [self._read(prompt, text) for text in texts]
        order = sorted(set(scores), reverse=True)
        return [order.index(score) for score in scores]

    def _read(self, prompt: Prompt, text: str) -> float:
        seen = judge_facts(prompt.facts, text)
        helpful, truthful, harmless = (self._misread(value) for value in (seen.helpful, seen.truthful, seen.harmless))
        return round(combine(prompt.facts["kind"], helpful, truthful, harmless or 0.0), 6)

    def _misread(self, value: float | None) -> float | None:
        wrong = self.draw.random() < self.error_rate
        return value if value is None or not wrong else 1.0 - value
