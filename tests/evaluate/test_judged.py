"""The judge over arrays: None becomes NaN, means are out of 100, clusters are entities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rlhf_pipeline.data.world import places, sets
from rlhf_pipeline.data.world.judge import Judge
from rlhf_pipeline.evaluate.judged import Judged, clusters_of, judge_answers, summary
from rlhf_pipeline.records import Prompt

NAN = float("nan")


def world_prompts(count=12, split="eval/seen"):
    rows = itertools.islice(sets.tables(places.build(0))[split], count)
    return [Prompt.from_dict(row, "world") for row in rows]


def _judged():
    score = np.array([[1.0, 0.5], [0.0, 0.5]])
    truthful = np.array([[1.0, NAN], [NAN, NAN]])
    return Judged(score, score, truthful, np.full((2, 2), NAN))


def test_arrays_are_what_the_judge_says_one_by_one():
    prompts = world_prompts()
    answers = [["no.", "what?"] for _ in prompts]
    judged = judge_answers(prompts, answers)
    assert judged.score.shape == (12, 2)
    for row, prompt in enumerate(prompts):
        one = Judge().score(prompt, "what?")
        assert judged.score[row, 1] == one.score
        assert np.isnan(judged.truthful[row, 1]) == (one.truthful is None)


def test_summary_is_out_of_100_and_leaves_out_what_does_not_apply():
    found = summary(_judged(), ["a", "b"])
    assert found["score"]["mean"] == 50.0
    low, high = found["score"]["ci95"]
    assert 0 <= low < 25 and 75 < high <= 100, "two prompts say little"
    assert (found["score"]["n"], found["score"]["clusters"]) == (4, 2)
    assert (found["truthful"]["mean"], found["truthful"]["n"]) == (100.0, 1)
    assert found["harmless"] is None


def test_pick_takes_one_answer_of_each_prompt():
    assert _judged().pick([1, 0]).score.tolist() == [[0.5], [0.0]]


def test_rows_take_some_prompts():
    assert _judged().rows([1]).score.tolist() == [[0.0, 0.5]]


def test_clusters_are_entities_or_else_prompts():
    assert clusters_of([Prompt("p", facts={"entity": "Bakeland"}), Prompt("q")]) == ["Bakeland", "q"]
    with pytest.raises(KeyError):
        judge_answers([Prompt("q")], [["a"]])
