"""The reward model on the very rankings that were held out of its training, beside the exact judge on the same pairs.

Left out: rankings by people, for which there is no judge and so no ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.ensemble import held_out_split
from rlhf_pipeline.bases import Checkpoint
from rlhf_pipeline.data.pairs import ordered_pairs
from rlhf_pipeline.data.sources import read
from rlhf_pipeline.data.splits import by_prompt
from rlhf_pipeline.data.world.judge import judge_facts
from rlhf_pipeline.evaluate.statistics import clustered_share
from rlhf_pipeline.evaluate.win_rate import outcomes
from rlhf_pipeline.jobs import KEY_VERSION
from rlhf_pipeline.records import Prompt, Ranking, completion_text
from rlhf_pipeline.rewards import members_of
from rlhf_pipeline.scoring import RewardModel


def held_out_accuracy(store: Store, run: str, checkpoint: Checkpoint, reward: RewardModel) -> dict[str, Any] | None:
    """Pair accuracy with interval over entities, and its ceiling, on the prompts the reward stage held out.

    None where the run's simulated rankings are not those the reward model (of an ensemble, each member) was trained on,
    or were split otherwise then.
    """
    rankings = store.run_dir(run, "feedback") / "rankings.jsonl"
    prompts = store.run_dir(run, "world") / "rank-prompts.jsonl"
    if not (rankings.is_file() and prompts.is_file() and store.has(checkpoint.parent)):
        return None
    rows = read(str(rankings), Ranking)
    splits = {held_out_split(store.manifest(member.parent)) for member in members_of(store, checkpoint)}
    split = splits.pop()
    if splits or split is None or split[:2] != (rows.fingerprint, KEY_VERSION):
        return None
    *_, fraction, seed = split
    _, held_out = by_prompt(rows.records, fraction, seed)
    facts = {str(one.prompt): one.facts for one in read(str(prompts), Prompt).records}
    return _accuracy(held_out, facts, reward)


def _accuracy(
    rankings: Sequence[Ranking], facts: Mapping[str, Mapping[str, Any]], reward: RewardModel
) -> dict[str, Any] | None:
    ours, judged, entities = [], [], []
    for ranking in rankings:
        known = facts[str(ranking.prompt)]
        texts = [completion_text(text) for text in ranking.completions]
        finished = [ranking.is_finished(number) for number in range(len(texts))]
        scores = reward.score([ranking.prompt] * len(texts), texts, finished).tolist()
        truth = [judge_facts(known, text).score for text in texts]
        for better, worse in ordered_pairs(ranking):
            ours.append((scores[better], scores[worse]))
            judged.append((truth[better], truth[worse]))
            entities.append(known.get("entity", str(ranking.prompt)))
    if not ours:
        return None
    accuracy = clustered_share(outcomes(*zip(*ours, strict=True)), entities)
    ceiling = clustered_share(outcomes(*zip(*judged, strict=True)), entities)
    if accuracy is None or ceiling is None:
        return None
    return {**accuracy.to_dict(), "ceiling": round(ceiling.mean, 4), "prompts": "held out of the rankings"}
