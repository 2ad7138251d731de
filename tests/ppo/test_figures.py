"""Figures end in TRL's metrics, as means over whole minibatches and whole rollouts."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rlhf_pipeline.ppo.figures import Figures


def two_ranks(values: Tensor) -> Tensor:
    """Gather as if another rank held the same completions, each one higher."""
    return torch.cat([values, values + 1])


def make() -> tuple[Figures, dict[str, dict[str, list[float]]]]:
    metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    return Figures(SimpleNamespace(gather=two_ranks), metrics), metrics


def test_completions_of_all_ranks_are_averaged() -> None:
    figures, metrics = make()
    figures.note_completions(
        "train",
        score=torch.tensor([1.0, 3.0]),
        kl_nats=torch.tensor([0.0, 0.0]),
        completion_tokens=torch.tensor([2.0, 6.0]),
    )
    assert metrics["train"]["ppo/score"] == [2.5]
    assert metrics["train"]["ppo/score_std"] == pytest.approx([1.25**0.5])
    assert metrics["train"]["ppo/kl_nats"] == [0.5]
    assert metrics["train"]["ppo/score_length_correlation"] == [pytest.approx(9 / 85**0.5)]
    assert not figures.held_out


def test_a_minibatch_is_one_mean_over_its_tokens_however_it_was_split() -> None:
    figures, metrics = make()
    figures.add_micro_batch(10, value_loss=6.0, ratio_abs_log=1.0)
    figures.add_micro_batch(10, value_loss=1.0, ratio_abs_log=0.0)
    figures.close_minibatch("train", first=True)
    figures.add_micro_batch(5, value_loss=1.0, ratio_abs_log=1.0)
    figures.close_minibatch("train", first=False)
    assert metrics["train"]["ppo/value_loss"] == pytest.approx([0.7, 0.2])
    assert metrics["train"]["ppo/first_ratio_abs_log"] == [0.1]
    assert metrics["train"]["ppo/ratio_abs_log"] == [0.2]


def test_means_and_intervals_are_over_held_out_completions() -> None:
    """`make` gathers from two ranks; a short second batch is filled up with what is left out."""
    figures, _ = make()
    figures.note_completions("eval", score=torch.tensor([1.0, 3.0]), completion_tokens=torch.ones(2))
    whole = figures.held_out["score"][:]
    figures.held_out["score"] += [100.0]
    found = figures.over_completions(len(whole))
    assert found["eval_ppo/score"] == pytest.approx(sum(whole) / len(whole))
    half = found["eval_ppo/score_ci95"]
    assert half == pytest.approx(1.96 * (5 / 3) ** 0.5 / 2, rel=1e-3)
