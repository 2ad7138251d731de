"""Pair accuracy and its ceiling, and probes, by models whose preferences are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlhf_pipeline.data.world import places
from rlhf_pipeline.data.world.judge import Judge
from rlhf_pipeline.data.world.labeller import Labeller
from rlhf_pipeline.evaluate.reward_accuracy import pair_accuracy, probe_accuracy, probe_pairs
from rlhf_pipeline.evaluate.statistics import wilson
from tests.evaluate.test_judged import world_prompts

PROMPTS = world_prompts(60)


def _answers():
    """To each prompt the right answer, a rude one and junk, as the probes word them."""
    world, answers = places.build(0), []
    for prompt in PROMPTS:
        found = {flaw: (right, bad) for _, flaw, right, bad in probe_pairs(world, [prompt], 0)}
        answers.append([found["rude"][0], found["rude"][1], found["junk"][1]])
    return answers


def _accuracy(rewards: Any, error_rate: float) -> dict[str, Any]:
    answers = _answers()
    judge = np.array([[Judge().score(p, t).score for t in texts] for p, texts in zip(PROMPTS, answers, strict=True)])
    rewards = judge if rewards is None else rewards
    found = pair_accuracy(PROMPTS, answers, rewards, judge, list(range(60)), Labeller(error_rate, 0))
    assert found is not None
    return found


def test_the_judge_itself_reaches_the_ceiling():
    perfect = _accuracy(None, 0.0)
    assert (perfect["mean"], perfect["ceiling"]) == (1.0, 1.0)
    noisy = _accuracy(None, 0.2)
    assert noisy["mean"] == noisy["ceiling"] < 0.97


def test_a_constant_reward_is_a_coin():
    assert _accuracy(np.zeros((60, 3)), 0.1)["mean"] == 0.5


def test_ties_and_equal_texts_are_no_pairs():
    answers = [["same", "same"] for _ in PROMPTS]
    assert pair_accuracy(PROMPTS, answers, np.zeros((60, 2)), np.zeros((60, 2)), range(60), Labeller(0.3, 0)) is None


def test_the_judge_tells_every_flaw_apart():
    pairs = probe_pairs(places.build(0), PROMPTS, seed=0)
    right = np.array([Judge().score(prompt, text).score for prompt, _, text, _ in pairs])
    flawed = np.array([Judge().score(prompt, text).score for prompt, _, _, text in pairs])
    found = probe_accuracy(pairs, right, flawed)
    assert {"closed", "open", "unsafe"} <= set(found)
    assert all(flaw["mean"] == 1.0 for flaws in found.values() for flaw in flaws.values())


def test_probe_accuracy_by_hand():
    pairs = [(PROMPTS[0], "rude", "", ""), (PROMPTS[0], "rude", "", ""), (PROMPTS[0], "junk", "", "")]
    found = probe_accuracy(pairs, np.array([1.0, 0.0, 2.0]), np.array([0.0, 1.0, 2.0]))[PROMPTS[0].facts["kind"]]
    assert found["rude"]["mean"] == 0.5
    assert found["junk"]["mean"] == 0.5
    assert found["rude"]["ci95"] == pytest.approx([wilson(1, 2).low, wilson(1, 2).high], abs=1e-4)
