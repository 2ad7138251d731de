"""Accuracy on held-out rankings: counted by hand on answers whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import torch

from rlhf_pipeline.data.world import places
from rlhf_pipeline.data.world.answers import answer
from rlhf_pipeline.data.world.prompts import ask
from rlhf_pipeline.evaluate.held_out import _accuracy
from rlhf_pipeline.records import Ranking


class Longer:
    """A reward model that likes long answers."""

    def score(self, prompts: Sequence[object], completions: Sequence[str], finished: Sequence[bool]) -> torch.Tensor:
        return torch.tensor([float(len(completion)) for completion in completions])


def test_accuracy_and_ceiling_by_hand() -> None:
    world, draw = places.build(0), Random(0)
    question = ask(world, draw, "closed")
    good = answer(world, draw, question.facts, "good", courtesy=0.0)
    junk = answer(world, draw, question.facts, "junk", courtesy=0.0) + " " * 200
    misread = Ranking(question.prompt, [good, junk], [1, 0])
    right = Ranking(question.prompt, [good, junk], [0, 1])

    found = _accuracy([misread, right, right, right], {question.prompt: question.facts}, Longer())  # type: ignore[arg-type]

    assert found is not None
    assert found["mean"] == pytest.approx(0.25)  # the longer one was preferred once
    assert found["ceiling"] == pytest.approx(0.75)  # the judge knows better than the labeller who misread
    assert found["n"] == 4


def test_nothing_to_compare() -> None:
    assert _accuracy([], {}, Longer()) is None  # type: ignore[arg-type]
