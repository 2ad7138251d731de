"""Compare the ways to share a stage out, recommend the quickest that fits, and say what would help where none does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.launch.plan.gpus import GIB
from rlhf_pipeline.launch.plan.memory import Ledger, Memory
from rlhf_pipeline.launch.plan.roles import Role, Shapes, stage_roles
from rlhf_pipeline.launch.plan.seconds import Time, step_seconds
from rlhf_pipeline.launch.plan.settings import LARGEST, PlanSettings, divides
from rlhf_pipeline.launch.plan.states import Offload, Sharding


@dataclass(frozen=True)
class Choice:
    """One way to share a stage out, what it takes, and whether the GPUs have it."""

    sharding: Sharding
    memory: Memory
    times: tuple[Time, ...]
    usable: int
    host_usable: int
    gpus_per_node: int

    @property
    def name(self) -> str:
        """`DDP`, `ZeRO-3`, `ZeRO-2, optimizer on the host`."""
        zero = self.sharding.zero
        plain = f"ZeRO-{zero}" if zero else "DDP" if self.sharding.processes > 1 else "one GPU"
        where = {"none": "", "optimizer": ", optimizer on the host", "all": ", weights and optimizer on the host"}
        return plain + where[self.sharding.offload]

    @property
    def bytes(self) -> int:
        """Bytes of a GPU at the peak."""
        return self.memory.total(self.memory.peak)

    @property
    def fits(self) -> bool:
        """Whether the peak leaves the reserve free, and the host has what is offloaded."""
        return self.bytes <= self.usable and self.host_bytes <= self.host_usable

    @property
    def seconds(self) -> float:
        """Seconds of a step; they mean nothing where it does not fit, since then nothing is left to sample in."""
        return sum(time.seconds for time in self.times)

    @property
    def host_bytes(self) -> int:
        """Bytes of a node's host."""
        return self.memory.host * min(self.gpus_per_node, self.sharding.processes)

    @property
    def limit(self) -> str:
        """What takes most at the peak, or the host."""
        if self.bytes <= self.usable and not self.fits:
            return "the host's memory"
        parts = (*self.memory.held, *self.memory.phases[self.memory.peak])
        return max(parts, key=lambda part: part.bytes).name


def choose(settings: PlanSettings, roles: Sequence[Role], zero: int, offload: Offload = "none") -> Choice:
    """Work out one way to share the networks of `roles` out."""
    accumulating = settings.gradient_accumulation_steps > 1
    sharding = Sharding(zero, settings.gpus, roles[0].network.width, offload, accumulating=accumulating)
    memory = Ledger(settings, roles, sharding, settings.gradient_checkpointing).memory()
    times = step_seconds(settings, roles, sharding, settings.gradient_checkpointing, memory.rows_at_once)
    return Choice(sharding, memory, tuple(times), settings.usable, int(settings.host_gib * GIB), settings.gpus_per_node)


def choices(settings: PlanSettings, roles: Sequence[Role]) -> list[Choice]:
    """Work out every way that the settings leave open, from the plainest; raises ConfigError where none is."""
    found = [choose(settings, roles, zero, offload) for zero, offload in _open(settings)]
    if not found:
        raise ConfigError(
            f"`offload` {settings.offload} needs DeepSpeed: `optimizer` zero 1, 2 or 3, `all` zero 3; and the moving "
            "average of a policy (ema_decay) works below zero 3; change one of them"
        )
    return found


def _open(settings: PlanSettings) -> Iterator[tuple[int, Offload]]:
    """Offloads go with the stages that DeepSpeed has them for; ppo keeps no moving average under ZeRO-3."""
    offloads: dict[int, tuple[Offload, ...]] = {
        0: ("none",),
        1: ("none", "optimizer"),
        2: ("none", "optimizer"),
        3: ("none", "optimizer", "all"),
    }
    for zero, ways in offloads.items():
        if settings.zero not in (None, zero) or (zero == 3 and settings.ema_decay is not None):
            continue
        yield from ((zero, way) for way in ways if settings.offload in (None, way))


def recommended(found: Sequence[Choice]) -> Choice | None:
    """Return the quickest that fits; of two within a twentieth the plainer, which stands first."""
    fitting = [choice for choice in found if choice.fits]
    quickest = min((choice.seconds for choice in fitting), default=0.0)
    return next((choice for choice in fitting if choice.seconds <= 1.05 * quickest), None)


def remedies(settings: PlanSettings, shapes: Shapes) -> list[tuple[str, Choice]]:
    """Try one change at a time, and return those with which a way fits, as they are typed."""
    found = []
    for typed, changes in _changes(settings):
        changed = dataclasses.replace(settings, **changes)
        best = recommended(choices(changed, stage_roles(changed, shapes)))
        if best is not None:
            found.append((typed, best))
    return found


def _changes(settings: PlanSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    if not settings.gradient_checkpointing:
        yield "--gradient_checkpointing true", {"gradient_checkpointing": True}
    if settings.per_device_train_batch_size > 1:
        yield "--per_device_train_batch_size 1", {"per_device_train_batch_size": 1}
    if not settings.use_peft:
        yield "--use_peft --dtype bfloat16", {"use_peft": True, "dtype": "bfloat16"}
    if settings.use_peft and settings.dtype == "float32":
        yield "--dtype bfloat16", {"dtype": "bfloat16"}
    if settings.stage == "ppo" and settings.sampler != "server":
        yield "--use_vllm --vllm_mode server", {"use_vllm": True, "vllm_mode": "server"}
    for times in (2, 4, 8, 16, 32):
        gpus = times * settings.gpus
        if gpus <= LARGEST and divides(gpus, settings.gpus_per_node):
            yield f"--gpus {gpus}", {"gpus": gpus}
