"""Score every completion of some rankings with a reward model, on exactly the token form it was trained on.

Left out: anything with the scores (`measure`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint
from rlhf_pipeline.encoding import OnLongRow, encode_prompt
from rlhf_pipeline.errors import DataError, ModelError
from rlhf_pipeline.evaluate.reward.comparisons import Comparisons
from rlhf_pipeline.evaluate.reward.distribution import eos_and_prompt
from rlhf_pipeline.evaluate.statistics import Floats
from rlhf_pipeline.records import Ranking
from rlhf_pipeline.rewards import load_reward_model
from rlhf_pipeline.scoring import RewardModel

T = TypeVar("T")

PROBED_RANKINGS = 200
"""Rankings, drawn at random, whose completions are also scored with EOS, without it, and without their text."""


def load(store: Store, checkpoint: Checkpoint, batch_size: int) -> RewardModel:
    """Load a reward model onto the first GPU, or the CPU where there is none."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return replace(load_reward_model(store, checkpoint, device), batch_size=batch_size)


def too_long(
    models: Sequence[RewardModel], rankings: Sequence[Ranking], places: Sequence[str], on_long_row: OnLongRow
) -> set[int]:
    """Numbers of the rankings with a completion that one of `models` has no positions for.

    Under "error" the first of them is a `DataError`; a row that a chat template refuses is a `ModelError`.
    """
    found = set()
    for number, (ranking, where) in enumerate(zip(_with_bar(rankings, "encoding"), places, strict=True)):
        for model in models:
            tokens = _longest(model, ranking, where)
            if tokens > model.positions and on_long_row == "error":
                raise DataError(
                    f"{where}: {tokens} tokens, more than the {model.positions} that {model.name} takes; shorten it, "
                    "or pass `--on_long_row skip`"
                )
            if tokens > model.positions:
                found.add(number)
    return found


def score_all(model: RewardModel, pairs: Comparisons, places: Sequence[str]) -> Floats:
    """Score every completion of `pairs`, (M,), whose rankings are from `places`; a score that is none is refused."""
    answers = _with_bar(pairs.answers, f"encoding for {model.name}")
    rows = [model.encode(answer.prompt, answer.completion, answer.finished) for answer in answers]
    first_ranking = {place: row for row in reversed(range(len(places))) for place in pairs.places[row]}
    return _scores(model, rows, [places[first_ranking[number]] for number in range(len(rows))])


def probe_eos(model: RewardModel, pairs: Comparisons, places: Sequence[str]) -> dict[str, Any]:
    """Score completions with EOS, without it, and their prompts alone, on at most `PROBED_RANKINGS` rankings."""
    count = len(pairs.rankings)
    chosen = sorted(Random(0).sample(range(count), min(count, PROBED_RANKINGS)))
    answers = [pairs.answers[place] for row in chosen for place in pairs.places[row]]
    from_ranking = [row for row in chosen for _ in pairs.places[row]]
    ended, cut_off = (
        [model.encode(answer.prompt, answer.completion, finished) for answer in answers] for finished in (True, False)
    )
    alone = [encode_prompt(model.tokenizer, answer.prompt) for answer in answers]
    fitting = [n for n, row in enumerate(ended) if len(row) <= model.positions]  # one EOS more may be one too many
    rows = [several[n] for several in (ended, cut_off, alone) for n in fitting]
    scores = _scores(model, rows, [places[from_ranking[n]] for n in fitting] * 3).reshape(3, -1)
    return eos_and_prompt(scores[0], scores[1], scores[2], [pairs.openings[from_ranking[n]] for n in fitting])


def _scores(model: RewardModel, rows: Sequence[list[int]], places: Sequence[str]) -> Floats:
    """Score rows (B,) that come from rankings at `places` (B,); NaN and infinity are a `ModelError`."""
    scores = np.asarray(model.score_ids(rows), dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise ModelError(
            f"{places[wrong[0]]}: {model.name} scores a completion {scores[wrong[0]]:g}, and {len(wrong)} of "
            f"{len(scores)} so; its weights are broken or overflow: name another with `--reward`, or train it again "
            "with a lower `--learning_rate`"
        )
    return scores


def _longest(model: RewardModel, ranking: Ranking, where: str) -> int:
    """Tokens of the longest completion with its prompt."""
    try:
        rows = [
            model.encode(ranking.prompt, text, ranking.is_finished(n)) for n, text in enumerate(ranking.completions)
        ]
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    return max(map(len, rows))


def _with_bar(rows: Sequence[T], what: str) -> Iterable[T]:
    bar: Iterable[T] = tqdm(rows, desc=what, unit="row", delay=2, leave=False, disable=None)
    return bar
