"""The contract with TRL and transformers: a release that changes what the trainer rests on fails here, by name."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from transformers import Trainer
from trl import RewardTrainer

from rlhf_pipeline.ranking.trainer import SEAMS, RankingTrainer
from tests.ranking.toy import make_trainer, random_groups

ADVICE = "read its new source, then change rlhf_pipeline/ranking/trainer.py"


@pytest.mark.parametrize("name", SEAMS)
def test_an_extended_method_keeps_its_signature(name: str) -> None:
    method = inspect.getattr_static(RewardTrainer, name, None)
    assert method is not None, f"this release has no {name}; {ADVICE}"
    found = tuple(inspect.signature(getattr(RewardTrainer, name)).parameters)[1:]
    assert found[: len(SEAMS[name])] == SEAMS[name], f"this release changed {name}{found}; {ADVICE}"


@pytest.mark.parametrize(
    ("cls", "method", "words"),
    [
        (RewardTrainer, "__init__", ["self._prepare_dataset(", "can_return_loss = True", "label_names = []"]),
        (RewardTrainer, "compute_loss", ["chunks=2", "center_rewards_coefficient", 'inputs["margin"]',
                                         '"min_reward"', '"mean_reward"', '"max_reward"', '"accuracy"', '"margin"',
                                         '"num_tokens"', "self._total_train_tokens"]),
        (RewardTrainer, "log", ["self._metrics[mode]", "sum(val) / len(val)", ".clear()"]),
        (Trainer, "training_step", ["loss / self.current_gradient_accumulation_steps"]),
        (Trainer, "evaluation_loop", ["find_batch_size(inputs)", "losses.repeat(batch_size)"]),
    ],
)  # fmt: skip
def test_what_the_overrides_take_for_granted_is_still_in_the_source(cls: type, method: str, words: list[str]) -> None:
    source = inspect.getsource(getattr(cls, method))
    assert [word for word in words if word not in source] == [], f"{method} changed; {ADVICE}"


def test_compute_loss_does_nothing_else_in_trl() -> None:
    """It is replaced, so a new term or metric must be seen: settings and metrics that it names, all of them."""
    source = inspect.getsource(RewardTrainer.compute_loss)
    assert source.count("self.args.") == source.count("self.args.center_rewards_coefficient"), ADVICE
    assert {word.split('"')[0] for word in source.split('self._metrics[mode]["')[1:]} == {
        "num_tokens", "min_reward", "mean_reward", "max_reward", "accuracy", "margin",
    }, ADVICE  # fmt: skip


def test_attributes_are_there(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, random_groups(0, [2] * 4))
    names = ("_metrics", "_total_train_tokens", "_signature_columns", "current_gradient_accumulation_steps")
    trainer.train()
    assert [name for name in names if name not in vars(trainer)] == [], ADVICE
    assert not RankingTrainer.loss_is_scaled_for_ga, f"the loss is divided by transformers; {ADVICE}"
