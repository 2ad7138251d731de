"""A step is the mean over its groups, however they are split over micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from tests.ranking.toy import Group, gradients, loss_and_gradients, make_trainer, random_groups


class Look(TrainerCallback):
    """Keeps the gradients that the optimizer is about to take."""

    def __init__(self) -> None:
        self.gradients: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
        self.gradients.append(gradients(model).clone())


def step(folder: Path, groups: list[Group], **changes: Any) -> torch.Tensor:
    """Train one step, and return the gradients that the optimizer took."""
    trainer, look = make_trainer(folder, groups, max_grad_norm=0.0, **changes), Look()
    trainer.add_callback(look)
    trainer.train()
    (gradient,) = look.gradients
    return gradient


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("batch", "accumulated"), [(1, 8), (2, 4), (4, 2)])
def test_micro_batches_give_the_gradient_of_one_batch(tmp_path: Path, seed: int, batch: int, accumulated: int) -> None:
    groups = random_groups(seed, [2, 9, 3, 4, 2, 7, 5, 2])
    whole = loss_and_gradients(make_trainer(tmp_path, groups), groups)[1]
    split = step(tmp_path, groups, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated)
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("count", "batch", "accumulated"), [(5, 4, 2), (7, 3, 4), (3, 2, 4)])
def test_a_short_last_micro_batch_weighs_by_its_groups(
    tmp_path: Path, count: int, batch: int, accumulated: int
) -> None:
    groups = random_groups(4, [2, 9, 3, 4, 2, 7, 5][:count])
    whole = loss_and_gradients(make_trainer(tmp_path, groups), groups)[1]
    split = step(tmp_path, groups, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated)
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-7)


def test_the_logged_loss_is_the_mean_over_groups(tmp_path: Path) -> None:
    groups = random_groups(4, [2, 9, 3, 4, 2])
    trainer = make_trainer(
        tmp_path, groups, per_device_train_batch_size=3, gradient_accumulation_steps=2, logging_strategy="steps",
        logging_steps=1,
    )  # fmt: skip
    expected = loss_and_gradients(make_trainer(tmp_path, groups), groups)[0].item()
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx(expected, rel=1e-5)
    assert logged["num_tokens"] == sum(len(row) for group in groups for row in group["input_ids"])
