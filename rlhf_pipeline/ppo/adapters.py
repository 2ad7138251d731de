"""Several adapters over one frozen base: which one is in force, and what follows for gradient checkpointing.

peft's own `set_adapter` also moves `requires_grad`, which must not happen between two forwards of one loss. Left out:
making and saving adapters (`models`, `ppo/critic`).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer

from rlhf_pipeline.errors import ConfigError


def tuner_layers(model: Any) -> list[BaseTunerLayer]:
    """The layers of a peft model that hold adapters."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@contextlib.contextmanager
def in_force(layers: list[BaseTunerLayer], name: str | None) -> Iterator[None]:
    """Let adapter `name` alone work inside `layers` for a while, or none; gradients are asked for as before."""
    before = [layer._active_adapter for layer in layers]
    for layer in layers:
        layer._active_adapter = [] if name is None else [name]
    try:
        yield
    finally:
        for layer, names in zip(layers, before, strict=True):
            layer._active_adapter = names


def recompute_in_force(model: Any, layers: list[BaseTunerLayer]) -> None:
    """Let gradient checkpointing recompute a layer under the adapter that was in force in its forward pass.

    Without this, the backward pass of the policy would run under whichever adapter came last. Works from the next time
    on that checkpointing is enabled, which transformers does when training starts.
    """
    inner = model.get_base_model()
    enable = inner.gradient_checkpointing_enable

    def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        names = layers[0].active_adapters
        return contextlib.nullcontext(), in_force(layers, names[0] if names else None)

    def enable_in_force(gradient_checkpointing_kwargs: dict[str, Any] | None = None, **more: Any) -> None:
        asked = gradient_checkpointing_kwargs or {}
        if asked.get("use_reentrant"):
            raise ConfigError(
                "gradient_checkpointing_kwargs: several adapters over one base need use_reentrant false, or "
                "gradient_checkpointing false"
            )
        with old_names():
            enable({**asked, "use_reentrant": False, "context_fn": contexts}, **more)

    inner.gradient_checkpointing_enable = enable_in_force  # transformers looks for one set on the instance


@contextlib.contextmanager
def old_names() -> Iterator[None]:
    """Silence renamings in transformers that TRL 1.16 and peft 0.21 have not followed: remove once both do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing", category=FutureWarning)
        yield
