"""What a forward pass in training must be: free of chance, and at the positions of `generate`."""

from __future__ import annotations

import inspect
from typing import Any

from accelerate.utils import is_peft_model
from torch import nn

from rlhf_pipeline.ppo.masked import position_ids

Keywords = dict[str, Any]


def silence_dropout(model: nn.Module) -> None:
    """Set every dropout rate in `model` to zero: Dropout modules and the rates that layers read from an attribute.

    Log-probabilities must not depend on chance, or the ratio to the rollout's own is never 1.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or "layerdrop" in name):
                setattr(module, name, 0.0)


def place_positions(model: Any) -> None:
    """Give the training forward the position ids that `generate` uses, where the architecture takes them."""
    causal_lm: Any = model.get_base_model() if is_peft_model(model) else model
    if "position_ids" not in inspect.signature(causal_lm.forward).parameters:
        return

    def add_positions(module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> tuple[tuple[Any, ...], Keywords]:
        if kwargs.get("fused_lm_head") and "position_ids" not in kwargs:
            kwargs = {**kwargs, "position_ids": position_ids(kwargs["attention_mask"])}
        return args, kwargs

    model.register_forward_pre_hook(add_positions, with_kwargs=True)
