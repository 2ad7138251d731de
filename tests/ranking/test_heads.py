"""Several heads on one model learn as that many models with one head and one backbone would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import LlamaForSequenceClassification

from rlhf_pipeline.ranking.trainer import RankingTrainer
from tests.ranking.toy import loss_and_gradients, make_config, random_groups
from tests.tiny import make_classifier, make_tokenizer

HEADS = 3
GROUPS = random_groups(3, [2, 5, 3, 2], margins=True)


def trainer_of(model: LlamaForSequenceClassification, folder: Path, **changes: Any) -> RankingTrainer:
    return RankingTrainer(
        model=model,
        args=make_config(folder, **changes),
        train_dataset=Dataset.from_list(GROUPS),
        eval_dataset=Dataset.from_list(GROUPS),
        processing_class=make_tokenizer(),
    )


def single(heads: LlamaForSequenceClassification, number: int) -> LlamaForSequenceClassification:
    """The same backbone with one of the heads."""
    model = make_classifier()
    model.model.load_state_dict(heads.model.state_dict())
    with torch.no_grad():
        model.score.weight.copy_(heads.score.weight[number : number + 1])
    return model


def test_loss_and_gradients_are_the_mean_of_those_of_each_head_alone(tmp_path: Path) -> None:
    model = make_classifier(num_labels=HEADS)
    trainer = trainer_of(model, tmp_path, center_rewards_coefficient=0.1)
    assert trainer.model.config.num_labels == HEADS
    loss, _ = loss_and_gradients(trainer, GROUPS)
    alone = [trainer_of(single(model, n), tmp_path, center_rewards_coefficient=0.1) for n in range(HEADS)]
    losses = [loss_and_gradients(one, GROUPS)[0] for one in alone]
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    for name, weight in model.model.named_parameters():
        expected = torch.stack([dict(one.model.model.named_parameters())[name].grad for one in alone]).mean(dim=0)
        torch.testing.assert_close(weight.grad, expected, atol=1e-6, rtol=1e-4)
    for number, one in enumerate(alone):
        torch.testing.assert_close(
            model.score.weight.grad[number], one.model.score.weight.grad[0] / HEADS, atol=1e-6, rtol=1e-4
        )


def test_accuracy_is_that_of_the_mean_score(tmp_path: Path) -> None:
    model = make_classifier(num_labels=HEADS)
    mean = single(model, 0)
    with torch.no_grad():
        mean.score.weight.copy_(model.score.weight.mean(dim=0, keepdim=True))
    several, one = (trainer_of(each, tmp_path).evaluate() for each in (model, mean))
    for name in ("accuracy", "margin", "mean_reward", "max_reward"):
        assert several[f"eval_{name}"] == pytest.approx(one[f"eval_{name}"], rel=1e-4, abs=1e-6)
    assert several["eval_loss"] >= one["eval_loss"]  # the loss is convex in the score


def test_a_model_of_heads_trains_and_is_saved_with_them(tmp_path: Path) -> None:
    trainer = trainer_of(make_classifier(num_labels=HEADS), tmp_path, max_steps=2, learning_rate=1e-2)
    before = trainer.model.score.weight.detach().clone()
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    saved = LlamaForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert saved.config.num_labels == HEADS and saved.score.weight.shape == (HEADS, 16)
    assert torch.equal(saved.score.weight, trainer.model.score.weight)
    assert (saved.score.weight != before).any(dim=1).all()
