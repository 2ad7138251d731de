"""The forward pass of training: log-probabilities, entropies and values of completion tokens, in one call of the model.

It lives inside the policy's own `forward`, where DDP, DeepSpeed and accelerate's autocast expect it; a call without
`predicts` is the model's own. Left out: images, and the auxiliary loss of mixture-of-experts routers.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn

from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.ppo.logprobs import Head, token_logprobs
from rlhf_pipeline.ppo.packing import Packed

Values = Callable[[Packed], Tensor]
Figures = Callable[..., dict[str, Tensor]]
Forward = Callable[..., dict[str, Tensor]]
"""A model, called as forward(input_ids=, predicts=)."""


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


def keeping_casts(device: torch.device) -> torch.autocast:
    """Let autocast keep the bf16 copies of weights that it makes, from one forward pass to the next.

    It keeps them until the outermost context ends, so this one is that, and does nothing else. Inside, weights must not
    change, and forward passes with and without gradients must not mix. Copies of frozen weights are never kept.
    """
    return torch.autocast(device.type, enabled=False)


def causal_lm(model: Any) -> Any:
    """Return the causal language model inside a policy: itself, or what peft put its adapters into."""
    if not is_peft_model(model):
        return model
    if model.active_peft_config.is_prompt_learning:
        raise ModelError(
            f"an adapter of kind {model.active_peft_config.peft_type} puts tokens before the prompt, which PPO does "
            "not know; use LoRA"
        )
    return model.get_base_model()


def backbone_states(model: Any, ids: Tensor) -> Tensor:
    """Return the last hidden states of a transformer without head, or with one: (B, T) ids to (B, T, width).

    Without a mask: what is padded on the right cannot be seen from the left.
    """
    states: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return states


def packed_logprobs(model: Any, temperature: float, head_in_float32: bool = False) -> Figures:
    """Return what turns `Packed` rows into `logprobs` and `entropy`, (N,) each, of a model with or without adapters.

    The function takes another temperature where asked.
    """
    inner = causal_lm(model)
    head = Head(inner, head_in_float32)

    def figures(packed: Packed, temperature: float = temperature) -> dict[str, Tensor]:
        states = backbone_states(inner, packed.ids)[packed.predicts]
        logprobs, entropy = token_logprobs(states, head, packed.labels, temperature)
        return {"logprobs": logprobs, "entropy": entropy}

    return figures


def give_packed_forward(
    model: Any, temperature: float, *, values: Values | None = None, head_in_float32: bool = False
) -> None:
    """Let `model(input_ids=ids, predicts=predicts)` give figures of the N tokens that `predicts` (B, T) points at.

    They are a dict: `logprobs` and `entropy`, both (N,), at `temperature`; and `values` (N,) where `values` is given,
    which turns `Packed` rows into them. With `as_text` they are those of pretraining: temperature 1, no values.
    """
    plain_forward = model.forward
    figures = packed_logprobs(model, temperature, head_in_float32)

    @functools.wraps(plain_forward)  # `generate` and the trainer read the signature
    def forward(self: Any, *args: Any, predicts: Tensor | None = None, as_text: bool = False, **kwargs: Any) -> Any:
        if predicts is None:
            return plain_forward(*args, **kwargs)
        packed = Packed(kwargs["input_ids"], predicts)
        if as_text:
            return figures(packed, 1.0)
        return figures(packed) if values is None else {**figures(packed), "values": values(packed)}

    model.forward = types.MethodType(forward, model)
