"""The settings of two papers under one name each, and what no setting of ours can carry over.

A preset stands below the YAML file and the command line: `rlhf ppo --preset tldr --kl_coef 0.1` changes one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rlhf_pipeline.config import Setting


class Preset(NamedTuple):
    """Settings by name, the paper they are from, and what it leaves out of it."""

    settings: Mapping[str, Any]
    source: str
    left_out: tuple[str, ...]


PRESETS = {
    "instructgpt": Preset(
        {
            "kl_coef": 0.02, "ptx_coef": 27.8, "ema_decay": 0.992, "num_iterations": 1, "epsilon": 0.2, "gamma": 1.0,
            "temperature": 1.0, "lr_scheduler_type": "constant_with_warmup",
        },
        "Ouyang et al. 2022, appendix C.4",
        (
            "learning rates and warm-up: they depend on the size of the model and the number of updates",
            "512 completions a rollout in minibatches of 64: set per_device_train_batch_size, "
            "gradient_accumulation_steps and steps_per_generation so that the line `completions a rollout` says so",
            "eight pretraining examples an episode: here one row of ptx_data a completion",
            "the reward's offset: train the reward model with --normalize_on demonstrations",
            "a 6B reward model and critic beside every policy",
        ),
    ),
    "tldr": Preset(
        {
            "learning_rate": 3e-6, "lr_scheduler_type": "linear", "adam_epsilon": 1e-5, "kl_coef": 0.05,
            "num_iterations": 4, "epsilon": 0.2, "cliprange_value": 0.2, "vf_coef": 0.1, "gamma": 1.0,
            "gae_lambda": 0.95, "temperature": 0.7, "max_completion_length": 53, "missing_eos_score": -1.0,
            "whiten_rewards": False,
        },
        "Huang et al. 2024",
        (
            "512 completions a rollout in one minibatch: set per_device_train_batch_size and "
            "gradient_accumulation_steps so that the line `completions a rollout` says so",
            "a million episodes: set max_steps",
            "the reward's offset: train the reward model with --normalize_on demonstrations",
        ),
    ),
}  # fmt: skip


def with_preset(asked: Mapping[str, Setting], name: str) -> dict[str, Setting]:
    """Put a preset's settings below those that were asked for."""
    preset = {key: Setting(key, value, f"preset {name}") for key, value in PRESETS[name].settings.items()}
    return {**preset, **asked}


def describe(name: str) -> str:
    """Say in a few lines what a preset sets, and what it leaves out."""
    preset = PRESETS[name]
    settings = " ".join(f"{key} {value}" for key, value in preset.settings.items())
    return "\n  ".join([f"preset {name} ({preset.source}): {settings}", *(f"left out: {x}" for x in preset.left_out)])
