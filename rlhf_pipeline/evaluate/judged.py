"""What the exact judge says of many answers, as arrays and as means with intervals."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_pipeline.data.world.judge import Judge
from rlhf_pipeline.evaluate.statistics import Floats, clustered_share
from rlhf_pipeline.records import Prompt

DIMENSIONS = ("score", "helpful", "truthful", "harmless")
PERCENT, DIGITS = 100.0, 1


@dataclass(frozen=True)
class Judged:
    """Judgements of K answers to each of P prompts: arrays (P, K) from 0 to 1, NaN where a dimension does not apply."""

    score: Floats
    helpful: Floats
    truthful: Floats
    harmless: Floats

    def of(self, dimension: str) -> Floats:
        """The array of one dimension."""
        arrays: dict[str, Floats] = {name: getattr(self, name) for name in DIMENSIONS}
        return arrays[dimension]

    def rows(self, places: Sequence[int]) -> Judged:
        """The judgements of some of the prompts."""
        return Judged(*(self.of(name)[list(places)] for name in DIMENSIONS))

    def pick(self, choice: Sequence[int]) -> Judged:
        """One answer of each prompt: `choice` (P,) are places among the K."""
        prompts = np.arange(len(self.score))
        return Judged(*(self.of(name)[prompts, np.asarray(choice)][:, None] for name in DIMENSIONS))


def judge_answers(prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> Judged:
    """Judge K answers to each of P prompts of the miniature world."""
    judge = Judge()
    found = [[judge.score(prompt, text) for text in texts] for prompt, texts in zip(prompts, answers, strict=True)]
    return Judged(*(np.array([[_number(getattr(one, name)) for one in row] for row in found]) for name in DIMENSIONS))


def summary(judged: Judged, clusters: Sequence[Hashable]) -> dict[str, Any]:
    """Mean and interval of each dimension out of 100; `clusters`: one label a prompt. None where none applies."""
    samples = judged.score.shape[1]
    labels = [label for label in clusters for _ in range(samples)]
    estimates = {name: clustered_share(judged.of(name).ravel(), labels) for name in DIMENSIONS}
    return {name: found and found.to_dict(PERCENT, DIGITS) for name, found in estimates.items()}


def clusters_of(prompts: Sequence[Prompt]) -> list[Hashable]:
    """What answers share their fate by: the entity a prompt is about, else the prompt itself."""
    return [prompt.facts.get("entity", str(prompt.prompt)) for prompt in prompts]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
