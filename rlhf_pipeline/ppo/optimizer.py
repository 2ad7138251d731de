"""One optimizer for policy and critic: the critic's own learning rate, and a policy that rests at first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from rlhf_pipeline.errors import ConfigError


def give_own_rate(optimizer: Optimizer, parameters: Iterable[Parameter], rate: float | None) -> None:
    """Move `parameters` into groups of their own, with learning rate `rate` (None: what they had).

    Weight decay and every other setting of a parameter's group stay as they were. Call before the first step.
    """
    mine = {id(p) for p in parameters}
    for group in list(optimizer.param_groups):
        moved = [p for p in group["params"] if id(p) in mine]
        group["params"] = [p for p in group["params"] if id(p) not in mine]
        settings = {key: value for key, value in group.items() if key != "params"}
        optimizer.add_param_group({**settings, "params": moved, "lr": group["lr"] if rate is None else rate})


def rest_all_but(scheduler: Any, parameters: Iterable[Parameter], steps: int) -> None:
    """Hold the rate of every group without `parameters` at zero for the first `steps` optimizer steps.

    A rate of zero, not a loss of zero: Adam's moments then hold real gradients when the others start to move, and the
    first updates are not several times too large. Raises ConfigError for a schedule that does not scale the rate.
    """
    if not isinstance(scheduler, LambdaLR):
        raise ConfigError(
            f"critic_warmup_steps works with schedules that scale the rate, not {type(scheduler).__name__}; set "
            "lr_scheduler_type to constant, linear or cosine"
        )
    active = {id(p) for p in parameters}
    for i, group in enumerate(scheduler.optimizer.param_groups):
        if all(id(p) not in active for p in group["params"]):
            scheduler.lr_lambdas[i] = _rest_first(scheduler.lr_lambdas[i], steps)
            group["lr"] = scheduler.base_lrs[i] * scheduler.lr_lambdas[i](scheduler.last_epoch)


def _rest_first(scale: Callable[[int], float], steps: int) -> Callable[[int], float]:
    return lambda step: 0.0 if step < steps else scale(step)
