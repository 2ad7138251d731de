"""How well a reward model orders answers: against labellers with known errors, and on one flaw at a time.

The ceiling is the exact judge's own accuracy on the same noisy pairs: what labellers got wrong nobody can predict.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations
from random import Random
from typing import Any

import numpy as np

from rlhf_pipeline.data.world.labeller import Labeller
from rlhf_pipeline.data.world.places import World
from rlhf_pipeline.data.world.probes import probes
from rlhf_pipeline.data.world.prompts import Question
from rlhf_pipeline.evaluate.statistics import Floats, clustered_share, wilson
from rlhf_pipeline.evaluate.win_rate import outcomes
from rlhf_pipeline.records import Prompt

ProbePair = tuple[Prompt, str, str, str]
"""A prompt, the name of a flaw, the right answer, and the answer with that flaw."""


def pair_accuracy(
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[str]],
    rewards: Floats,
    judge: Floats,
    clusters: Sequence[Hashable],
    labeller: Labeller,
) -> dict[str, Any] | None:
    """Let `labeller` rank the K answers to each prompt; how often do `rewards` and `judge`, (P, K) each, agree?

    Counted are pairs of different rank and different text, a tie of the model half. Returns mean, ci95 and ceiling
    from 0 to 1, or None where there is no pair.
    """
    places = [
        (number, better, worse)
        for number, (prompt, texts) in enumerate(zip(prompts, answers, strict=True))
        for better, worse in _ordered(labeller.rank(prompt, texts), texts)
    ]
    if not places:
        return None
    rows, better, worse = (np.array(column) for column in zip(*places, strict=True))
    labels = [clusters[row] for row in rows]
    accuracy = clustered_share(outcomes(rewards[rows, better], rewards[rows, worse]), labels)
    ceiling = clustered_share(outcomes(judge[rows, better], judge[rows, worse]), labels)
    if accuracy is None or ceiling is None:
        return None
    return {**accuracy.to_dict(), "ceiling": round(ceiling.mean, 4), "error_rate": labeller.error_rate}


def _ordered(ranks: Sequence[int], texts: Sequence[str]) -> list[tuple[int, int]]:
    """Every two answers of different rank and text, the better one first."""
    found = [(a, b) if ranks[a] < ranks[b] else (b, a) for a, b in combinations(range(len(texts)), 2)]
    return [(a, b) for a, b in found if ranks[a] != ranks[b] and texts[a] != texts[b]]


def probe_pairs(world: World, prompts: Sequence[Prompt], seed: int) -> list[ProbePair]:
    """The right answer to each prompt beside one with each flaw, where the flaw shows."""
    draw = Random(f"probes/{seed}")
    return [
        (prompt, flaw, right, flawed)
        for prompt in prompts
        for flaw, (right, flawed) in probes(world, draw, Question(str(prompt.prompt), prompt.facts)).items()
        if right != flawed
    ]


def probe_accuracy(pairs: Sequence[ProbePair], right: Floats, flawed: Floats) -> dict[str, dict[str, Any]]:
    """How often the right answer scores higher, (N,) each: kind of prompt -> flaw -> mean with Wilson's interval."""
    results = outcomes(right, flawed)
    groups: dict[str, dict[str, list[float]]] = {}
    for (prompt, flaw, _, _), result in zip(pairs, results, strict=True):
        groups.setdefault(prompt.facts["kind"], {}).setdefault(flaw, []).append(float(result))
    return {
        kind: {flaw: _share(found) for flaw, found in sorted(flaws.items())} for kind, flaws in sorted(groups.items())
    }


def _share(results: list[float]) -> dict[str, Any]:
    estimate = wilson(sum(results), len(results))
    assert estimate is not None, "a group has at least one member"
    return estimate.to_dict()
