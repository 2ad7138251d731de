"""Everything that is reported about one set of prompts, as the JSON that evaluation.json holds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from rlhf_pipeline.data.world.labeller import Labeller
from rlhf_pipeline.evaluate.answers import Answers
from rlhf_pipeline.evaluate.judged import Judged, clusters_of, judge_answers, summary
from rlhf_pipeline.evaluate.reward_accuracy import pair_accuracy
from rlhf_pipeline.evaluate.statistics import Floats, clustered_mean
from rlhf_pipeline.evaluate.win_rate import win_rate
from rlhf_pipeline.records import Prompt

SHOWN_SAMPLES = 6
"""Prompts of a split whose answers are written out, spread over the kinds."""


@dataclass(frozen=True)
class Measured:
    """One model on P prompts: its answers, and what the judge says of them where there is one."""

    answers: Answers
    judged: Judged | None
    greedy: Judged | None

    @property
    def scores(self) -> Floats | None:
        """What models are compared by, (P, K): the judge's score, else the reward model's."""
        return self.answers.rewards if self.judged is None else self.judged.score


def measure(prompts: Sequence[Prompt], answers: Answers, has_judge: bool) -> Measured:
    """Judge one model's answers."""
    if not has_judge:
        return Measured(answers, None, None)
    greedy = [[completion.text] for completion in answers.greedy]
    return Measured(answers, judge_answers(prompts, answers.texts()), judge_answers(prompts, greedy))


def best_of(measured: Measured) -> Measured:
    """The answer among K that the reward model likes best, as a model of its own."""
    rewards = measured.answers.rewards
    assert rewards is not None, "best-of needs rewards"
    choice = rewards.argmax(axis=1).tolist()
    picked = [[several[best]] for several, best in zip(measured.answers.sampled, choice, strict=True)]
    answers = replace(measured.answers, sampled=picked, rewards=rewards.max(axis=1, keepdims=True), kl=None)
    return Measured(answers, measured.judged and measured.judged.pick(choice), None)


def split_results(prompts: Sequence[Prompt], measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Models, win rates of every later against every earlier one, and sample answers."""
    clusters = clusters_of(prompts)
    compared = {name: one.scores for name, one in measured.items() if one.scores is not None}
    return {
        "prompts": len(prompts),
        "models": {name: model_results(prompts, one, clusters) for name, one in measured.items()},
        "win_rate": {
            f"{ours}_vs_{theirs}": win_rate(compared[ours], compared[theirs], clusters)
            for theirs, ours in combinations(compared, 2)
        },
        "samples": samples(prompts, measured),
    }


def model_results(prompts: Sequence[Prompt], measured: Measured, clusters: Sequence[Hashable]) -> dict[str, Any]:
    """What one model reaches: judge, greedy judge, by kind of prompt, reward, KL, length, share finished."""
    answers = measured.answers
    flat = [completion for several in answers.sampled for completion in several]
    found: dict[str, Any] = {
        "completion_tokens": round(float(np.mean([len(one.token_ids) for one in flat])), 2),
        "finished": round(float(np.mean([one.finished for one in flat])), 4),
    }
    if measured.judged is not None:
        found["judge"] = summary(measured.judged, clusters)
        found["by_kind"] = _by_kind(prompts, measured.judged, clusters)
    if measured.greedy is not None:
        found["greedy"] = summary(measured.greedy, clusters)
    if answers.rewards is not None:
        found["reward"] = _mean(answers.rewards, clusters)
    if answers.kl is not None:
        found["kl_nats"] = _mean(answers.kl[:, None], clusters)
    return found


def reward_accuracy(
    prompts: Sequence[Prompt], measured: Measured, error_rate: float, seed: int
) -> dict[str, Any] | None:
    """Pair accuracy of the reward model on `measured`'s samples, ranked by a labeller who errs at `error_rate`."""
    if measured.judged is None or measured.answers.rewards is None:
        return None
    texts, labeller = measured.answers.texts(), Labeller(error_rate, seed)
    scores = (measured.answers.rewards, measured.judged.score)
    return pair_accuracy(prompts, texts, *scores, clusters_of(prompts), labeller)


def samples(prompts: Sequence[Prompt], measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """The first sample of every model side by side, for a few prompts of every kind."""
    kinds: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        kinds.setdefault(prompt.facts.get("kind", ""), []).append(place)
    each = max(1, SHOWN_SAMPLES // len(kinds))
    places = sorted(place for several in kinds.values() for place in several[:each])
    return [
        {
            "prompt": prompts[place].prompt,
            "answers": {name: _sample(one, place) for name, one in measured.items()},
        }
        for place in places
    ]


def _sample(measured: Measured, place: int) -> dict[str, Any]:
    completion = measured.answers.sampled[place][0]
    shown: dict[str, Any] = {"text": completion.text, "finished": completion.finished}
    if measured.judged is not None:
        shown["score"] = round(100 * float(measured.judged.score[place, 0]))
    if measured.answers.rewards is not None:
        shown["reward"] = round(float(measured.answers.rewards[place, 0]), 3)
    return shown


def _by_kind(prompts: Sequence[Prompt], judged: Judged, clusters: Sequence[Hashable]) -> dict[str, Any]:
    kinds: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        kinds.setdefault(prompt.facts["kind"], []).append(place)
    return {
        kind: summary(judged.rows(places), [clusters[place] for place in places])
        for kind, places in sorted(kinds.items())
    }


def _mean(values: Floats, clusters: Sequence[Hashable]) -> dict[str, Any] | None:
    labels = [label for label in clusters for _ in range(values.shape[1])]
    found = clustered_mean(values.ravel(), labels)
    return None if found is None else found.to_dict()
