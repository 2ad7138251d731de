"""Weights that DeepSpeed ZeRO-3 shares out among processes: load them whole, gather them, share frozen ones.

Under ZeRO-3 a parameter between two forward passes is an empty tensor; every process holds a part of it elsewhere, and
whatever reads or writes the whole has to gather it first, on all processes together. Under every other launcher each
function here does nothing. Left out: what shares out a network in training (transformers does, through accelerate).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from transformers.integrations import deepspeed as state


def zero_stage() -> int:
    """The ZeRO stage that this process was launched for; 0 without DeepSpeed. Known once trainer arguments exist."""
    config = state.deepspeed_config()
    return 0 if config is None else int(config.get("zero_optimization", {}).get("stage", 0))


def gathered(parameters: Iterable[Tensor], *, write: bool = False) -> contextlib.AbstractContextManager[Any]:
    """Hold `parameters` whole for a while; with `write`, what rank 0 made of them is kept by all."""
    if not state.is_deepspeed_zero3_enabled():
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0 if write else None)  # type: ignore[no-any-return]


@contextlib.contextmanager
def loaded_whole() -> Iterator[None]:
    """Let transformers make models that every process holds whole, also under ZeRO-3; one process alone may do it."""
    config = state._hf_deepspeed_config_weak_ref
    state.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        state._hf_deepspeed_config_weak_ref = config


def share_frozen(model: nn.Module, accelerator: Any) -> Any:
    """Share a frozen model out for inference, under ZeRO-3; the engine that is returned must be kept, or None.

    The model itself is called as before: its layers gather themselves.
    """
    if not state.is_deepspeed_zero3_enabled():
        return None
    from trl.models.utils import prepare_deepspeed

    return prepare_deepspeed(model, accelerator)


@contextlib.contextmanager
def gathered_for_sampling(engine: Any, parameters: Iterable[Tensor]) -> Iterator[None]:
    """Hold `parameters` of the module in training whole, its layers gathering nothing, while tokens are sampled.

    `engine` is what DeepSpeed made of the module. Processes sample at their own pace, so none may gather inside.
    """
    if not state.is_deepspeed_zero3_enabled():
        yield
        return
    from trl.models.utils import add_hooks, remove_hooks

    with gathered(parameters):
        remove_hooks(engine)
        try:
            yield
        finally:
            add_hooks(engine)
