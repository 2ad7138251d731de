"""A reward of nothing; read as a file of reward functions, it also lets rank 0 say what its networks hold.

It says so once, while the policy samples, as a line of JSON.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from rlhf_pipeline.ppo.trainer import PPOTrainer
from rlhf_pipeline.scoring import RewardModel

SAYS = "holdings: "
sample = PPOTrainer.sample


def holdings(trainer: Any) -> dict[str, dict[str, int]]:
    """What this process holds of every network, by the names of a plan's roles."""
    [reward] = [found for found in gc.get_objects() if type(found) is RewardModel]
    policy = [p for name, p in trainer.model.named_parameters() if not name.startswith("critic.")]
    networks = {
        "policy": policy,
        "critic": trainer.critic.parameters(),
        "reference": trainer.ref_model.parameters(),
        "reward": reward.model.parameters(),
    }
    return {name: held(parameters) for name, parameters in networks.items()}


def held(parameters: Iterable[Any]) -> dict[str, int]:
    """Numbers that are always there, of how many bytes each, and numbers that are there as whole parameters now."""
    parameters = list(parameters)
    rest: list[Tensor] = [getattr(p, "ds_tensor", p) for p in parameters]
    [width] = {tensor.element_size() for tensor in rest}
    return {
        "numbers": sum(tensor.numel() for tensor in rest),
        "width": width,
        "whole": sum(p.numel() for p in parameters),
    }


def sample_and_say(trainer: PPOTrainer, *prompts: Any) -> Any:
    """Say it, and sample as ever from then on."""
    PPOTrainer.sample = sample  # type: ignore[method-assign]
    if trainer.accelerator.is_main_process:
        print(SAYS + json.dumps(holdings(trainer)), flush=True)
    return sample(trainer, *prompts)


def nothing(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward of zero."""
    return [0.0 for _ in completions]


PPOTrainer.sample = sample_and_say  # type: ignore[method-assign]
