"""Evaluate the models of a run: sample, judge, compare, and return what evaluation.json holds.

Left out: reading settings and writing files (`command`), drawing (`plots`) and wording (`report`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.store import MAKES
from rlhf_pipeline.bases import HUB_PREFIX, Checkpoint
from rlhf_pipeline.data.world import places
from rlhf_pipeline.encoding import LongRow, OnLongRow, fit
from rlhf_pipeline.ensembles import Reduction
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.evaluate.answers import Answers, Sampling, answer_all, with_rewards
from rlhf_pipeline.evaluate.epochs import score_by_epoch, sft_checkpoints
from rlhf_pipeline.evaluate.held_out import held_out_accuracy
from rlhf_pipeline.evaluate.reward_accuracy import probe_accuracy, probe_pairs
from rlhf_pipeline.evaluate.split_results import Measured, best_of, measure, reward_accuracy, split_results
from rlhf_pipeline.models import load_config, load_tokenizer
from rlhf_pipeline.prepared import room
from rlhf_pipeline.records import Prompt
from rlhf_pipeline.rewards import load_reward_model
from rlhf_pipeline.scoring import RewardModel

PROBED_PROMPTS = 100
"""Prompts of a split that the reward model's probes are made of; each gives three to five pairs."""


@dataclass(frozen=True)
class Evaluation:
    """What is to be evaluated: models by name, prompts by split, and how.

    `world_seed` is that of the miniature world the prompts belong to, and None for any other data, which has no judge.
    """

    run: str
    models: Mapping[str, Checkpoint]
    splits: Mapping[str, list[Prompt]]
    headline: str
    reference: str | None
    reward: Checkpoint | None
    sampling: Sampling
    world_seed: int | None
    error_rate: float
    on_long_row: OnLongRow
    reduction: Reduction = Reduction()


def evaluate(store: Store, asked: Evaluation) -> dict[str, Any]:
    """Evaluate what `asked` names; raises `ModelError` or `DataError` where a model or a prompt cannot be used."""
    began = time.monotonic()
    splits, skipped = _fitting(asked)
    reward = None if asked.reward is None else _reward_model(store, asked, asked.reward)
    answers = _answers(store, asked, splits, reward)
    results, start = {}, 0
    for name, prompts in splits.items():
        rows = range(start, start := start + len(prompts))
        results[name] = _split(asked, prompts, {model: found.rows(rows) for model, found in answers.items()}, reward)
    held_out = None
    if asked.reward is not None and reward is not None and asked.world_seed is not None:
        held_out = held_out_accuracy(store, asked.run, asked.reward, reward)
    return {
        **_headline(results, asked),
        **({} if held_out is None else {"reward_accuracy": held_out}),
        "seconds": {**_stage_seconds(store, asked), "eval": round(time.monotonic() - began, 1)},
        "skipped_long_prompts": skipped,
        "splits": results,
        "sft_epochs": _sft_epochs(store, asked),
    }


def _answers(
    store: Store, asked: Evaluation, splits: Mapping[str, list[Prompt]], reward: RewardModel | None
) -> dict[str, Answers]:
    """All models on the prompts of all splits at once, so that batches are full."""
    prompts = [prompt.prompt for several in splits.values() for prompt in several]
    answers = answer_all(store, asked.models, asked.reference, prompts, asked.sampling)
    return answers if reward is None else {name: with_rewards(a, prompts, reward) for name, a in answers.items()}


def _split(
    asked: Evaluation, prompts: list[Prompt], answers: Mapping[str, Answers], reward: RewardModel | None
) -> dict[str, Any]:
    has_judge = asked.world_seed is not None
    measured = {name: measure(prompts, found, has_judge) for name, found in answers.items()}
    reference = measured.get(asked.reference or "")
    if reward is not None and reference is not None:
        measured = _with_best_of(measured, asked)
    results = split_results(prompts, measured)
    if reward is not None and reference is not None and has_judge:
        results["reward_accuracy"] = reward_accuracy(prompts, reference, asked.error_rate, asked.sampling.seed)
        results["reward_probes"] = _probes(asked, prompts, reward)
    return results


def _with_best_of(measured: Mapping[str, Measured], asked: Evaluation) -> dict[str, Measured]:
    """Insert the reference's best of K behind the reference itself."""
    found: dict[str, Measured] = {}
    for name, one in measured.items():
        found[name] = one
        if name == asked.reference and asked.sampling.num_generations > 1:
            found[f"{name}_best_of_{asked.sampling.num_generations}"] = best_of(one)
    return found


def _probes(asked: Evaluation, prompts: list[Prompt], reward: RewardModel) -> dict[str, Any]:
    assert asked.world_seed is not None, "probes are made of the world's facts"
    pairs = probe_pairs(places.build(asked.world_seed), prompts[:PROBED_PROMPTS], asked.sampling.seed)
    texts, finished = [prompt.prompt for prompt, *_ in pairs], [True] * len(pairs)
    right = reward.score(texts, [good for *_, good, _ in pairs], finished)
    flawed = reward.score(texts, [bad for *_, bad in pairs], finished)
    return probe_accuracy(pairs, right.double().numpy(), flawed.double().numpy())


def _headline(results: Mapping[str, Any], asked: Evaluation) -> dict[str, Any]:
    """The figures of the headline split, where readers of evaluation.json look first."""
    headline = results[asked.headline]
    policy = headline["models"].get("policy", {})
    return {
        "split": asked.headline,
        "models": headline["models"],
        "win_rate": headline["win_rate"],
        "compared_by": "reward" if asked.world_seed is None else "judge",
        "reward_accuracy": headline.get("reward_accuracy"),
        "kl_nats": (policy.get("kl_nats") or {}).get("mean"),
    }


def _stage_seconds(store: Store, asked: Evaluation) -> dict[str, float]:
    """How long each stage of the run took, from the manifests of what it published."""
    roles = store.refs().get(asked.run, {})
    local = {role: name for role, name in roles.items() if role != "critic" and not name.startswith(HUB_PREFIX)}
    seconds = {role: store.manifest(name).metrics.get("seconds") for role, name in local.items()}
    return {MAKES[role]: value for role, value in seconds.items() if role in MAKES and value is not None}


def _sft_epochs(store: Store, asked: Evaluation) -> list[dict[str, Any]]:
    sft = asked.models.get("sft")
    if sft is None or sft.parent not in store.ids() or asked.world_seed is None:
        return []
    checkpoints = sft_checkpoints(store, asked.run, sft.parent)
    return score_by_epoch(store, checkpoints, asked.splits[asked.headline], asked.sampling)


def _reward_model(store: Store, asked: Evaluation, checkpoint: Checkpoint) -> RewardModel:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_reward_model(store, checkpoint, device, reduction=asked.reduction)


def _fitting(asked: Evaluation) -> tuple[dict[str, list[Prompt]], int]:
    """The prompts that leave room for a completion in every model; the others are refused, or skipped and counted."""
    checkpoints = [*asked.models.values(), *([asked.reward] if asked.reward else [])]
    limits = [(load_tokenizer(one), room(load_config(one), None)) for one in checkpoints]
    longest = asked.sampling.max_completion_length

    def fits(prompt: Prompt, where: str) -> bool:
        found = [fit(encoder, prompt.prompt, longest, limit, where, asked.on_long_row) for encoder, limit in limits]
        return not any(isinstance(one, LongRow) for one in found)

    splits = {
        name: [prompt for number, prompt in enumerate(prompts) if fits(prompt, f"{name}, prompt {number + 1}")]
        for name, prompts in asked.splits.items()
    }
    for name, prompts in splits.items():
        if not prompts:
            raise DataError(f"{name}: every prompt is too long; lower `max_completion_length`")
    return splits, sum(map(len, asked.splits.values())) - sum(map(len, splits.values()))
