"""The policy's weights as a plain model has them: what an engine beside the trainer (vLLM) samples from.

An adapter is added to a copy of each weight that it adapts. TRL merges into the base and takes it away again, which
leaves rounding in a base that others share, and, where weights are packed before they are sent, sends them too late.
Left out: adapters that are more than a sum (DoRA), quantised bases, weights that an adapter replaces as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor

from rlhf_pipeline.errors import ConfigError

Gather = Callable[[Sequence[Tensor]], AbstractContextManager[Any]]


@torch.no_grad()
def engine_weights(policy: Any, gather: Gather) -> Iterator[tuple[str, Tensor]]:
    """Yield name and weight, one gathered at a time, with the policy's adapter added where it has one."""
    adapted = is_peft_model(policy)
    plain = policy.get_base_model() if adapted else policy
    for name, weight in plain.named_parameters():
        if name.startswith("critic.") or (adapted and policy.base_model.prefix in name):
            continue
        owner, _, leaf = name.rpartition(".")
        layer = plain.get_submodule(owner.removesuffix(".base_layer"))
        plain_name = name.replace(".base_layer", "")
        if leaf == "weight" and owner.endswith(".base_layer") and "default" in layer.lora_A:
            with gather([weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight]):
                yield plain_name, (weight + layer.get_delta_weight("default")).to(weight.dtype)
        else:
            with gather([weight]):
                yield plain_name, weight.data


def need_plain_sum(policy: Any) -> None:
    """Raise ConfigError where the policy's adapter is more than a sum with the weights of its base."""
    if not is_peft_model(policy):
        return
    config = policy.peft_config["default"]
    kinds = {"use_dora": config.use_dora, "lora_bias": config.lora_bias, "modules_to_save": config.modules_to_save}
    kinds["a 4- or 8-bit base"] = getattr(policy, "is_loaded_in_4bit", False) or getattr(
        policy, "is_loaded_in_8bit", False
    )
    for name, there in kinds.items():
        if there:
            raise ConfigError(
                f"use_vllm: the policy's adapter comes with {name}, which vLLM is not sent; use plain LoRA"
            )
