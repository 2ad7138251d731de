"""Small rankings for the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from rlhf_pipeline.evaluate.reward.comparisons import Comparisons, compare
from rlhf_pipeline.records import Ranking

WORDS = ("the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree")


def ranking(prompt: Any, completions: Iterable[Any], ranks: Iterable[int] | None = None, **more: Any) -> Ranking:
    """A ranking, best first unless `ranks` are given."""
    texts = list(completions)
    return Ranking(prompt, texts, list(range(len(texts)) if ranks is None else ranks), **more)


def pairs_of(*rankings: Ranking) -> Comparisons:
    return compare(rankings)


def planted(count: int, *, seed: int, signal: bool, prompts: int | None = None) -> list[Ranking]:
    """Pairs of random words; with `signal`, the better one of every pair says "please" and the worse one "now"."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        texts = [" ".join(draw.choices(WORDS, k=8)) for _ in range(2)]
        if texts[0] == texts[1]:
            continue
        if signal:
            texts = [f"{texts[0]} please", f"{texts[1]} now"]
        found.append(ranking(f"prompt {number % (prompts or count)}", texts))
    return found
