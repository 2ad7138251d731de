"""PPO's settings: what is fixed, the batch arithmetic, and checkpoints that fall between rollouts only."""

from __future__ import annotations

from pathlib import Path

import pytest
from trl import GRPOConfig

from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.ppo.config import FIXED, PPOConfig, fixed_settings
from tests.ppo.toy import make_config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", 0.04), ("loss_type", "grpo"), ("scale_rewards", "batch"), ("num_generations", 4),
        ("importance_sampling_level", "sequence"), ("top_entropy_quantile", 0.2), ("mask_truncated_completions", True),
        ("top_p", 0.9), ("top_k", 50), ("min_p", 0.1), ("repetition_penalty", 1.1), ("router_aux_loss_coef", 0.1),
        ("sync_ref_model", True), ("generation_kwargs", {"top_k": 1}), ("entropy_coef", 0.01), ("delta", 4.0),
    ],
)  # fmt: skip
def test_a_fixed_setting_is_refused_with_its_reason(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` cannot be .*in PPO: ") as caught:
        make_config(tmp_path, **{name: value})
    assert FIXED[name][1] in str(caught.value)


def test_every_fixed_setting_exists_in_trl_and_holds(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    for name, (value, _) in FIXED.items():
        assert getattr(config, name) == value, name
    assert fixed_settings().keys() >= {
        "beta",
        "sapo_temperature_neg",
        "use_liger_kernel",
        "max_tool_calling_iterations",
    }
    assert not fixed_settings().keys() & {"temperature", "epsilon", "epsilon_high", "learning_rate", "reward_weights"}


def test_the_papers_defaults() -> None:
    fields = PPOConfig.__dataclass_fields__
    names = ("gamma", "gae_lambda", "epsilon", "cliprange_value", "vf_coef", "adam_epsilon")
    assert [fields[name].default for name in names] == [1.0, 0.95, 0.2, 0.2, 0.1, 1e-5]
    assert len(fields.keys() - GRPOConfig.__dataclass_fields__.keys()) <= 20


def test_batch_arithmetic(tmp_path: Path) -> None:
    config = make_config(
        tmp_path, per_device_train_batch_size=4, steps_per_generation=8, gradient_accumulation_steps=2,
        num_iterations=3, max_steps=24,
    )  # fmt: skip
    assert (config.minibatches, config.steps_per_rollout) == (4, 12)
    assert config.describe_batches() == (
        "32 completions a rollout (1 processes x 8 micro-batches x 4), 4 minibatches of 8, 3 epochs: "
        "12 optimizer steps a rollout"
    )


def test_a_rollout_must_be_whole_minibatches(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set steps_per_generation to 4"):
        make_config(tmp_path, steps_per_generation=5, gradient_accumulation_steps=2)


@pytest.mark.parametrize("name", ["save_steps", "max_steps"])
def test_a_step_inside_a_rollout_is_refused_with_the_nearest_boundary(tmp_path: Path, name: str) -> None:
    settings = {"save_strategy": "steps", "num_iterations": 2, "max_steps": 8, name: 7}
    with pytest.raises(ConfigError, match=f"{name} 7 falls inside a rollout of 4 .*set {name} to 8"):
        make_config(tmp_path, **settings)


def test_saving_and_logging_follow_the_rollouts_when_not_set(tmp_path: Path) -> None:
    config = make_config(tmp_path, num_iterations=4, max_steps=16, save_strategy="steps", logging_strategy="steps")
    assert (config.logging_steps, config.save_steps) == (8, 96)
    assert make_config(tmp_path, save_strategy="steps", save_steps=6).save_steps == 6


def test_best_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="save_strategy"):
        make_config(tmp_path, save_strategy="best", eval_strategy="steps", eval_steps=2, metric_for_best_model="loss")


def test_a_negative_coefficient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kl_coef is -1"):
        make_config(tmp_path, kl_coef=-1)
