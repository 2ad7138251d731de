"""Bytes of weights, gradients, optimizer state and communication buffers that one process holds.

The partition is that of Rajbhandari et al. 2020 (ZeRO, section 5): Adam's state over the processes in stage 1,
gradients too in stage 2, weights too in stage 3. What is more than theory is what DeepSpeed 0.19 does: buckets, copies,
parameters too small to be cut. Left out: what lasts shorter than a step (`memory`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Offload = Literal["none", "optimizer", "all"]

MAX_LIVE = 10**9
"""DeepSpeed's stage3_max_live_parameters: gathered weights that may be on a GPU at once."""
SUB_GROUP = 10**9
"""DeepSpeed's sub_group_size: weights that its ZeRO-3 optimizer steps at once."""


@dataclass(frozen=True)
class Precision:
    """Bytes of one number. `trained` and `frozen` weights; gradients and DDP's buckets are as wide as `trained`.

    bf16 under DeepSpeed is 2 and 2, with a float32 copy of trained weights to step on. Autocast is 4 and 4.
    """

    trained: int = 4
    frozen: int = 4


@dataclass(frozen=True)
class Sharding:
    """How the states of one engine are shared out: `zero` 0 is DDP, or a process alone.

    `hidden` is the width that transformers and accelerate set DeepSpeed's `auto` by: a bucket of hidden^2 numbers,
    and parameters of up to 10 hidden numbers whole on every process in stage 3.
    """

    zero: int
    processes: int
    hidden: int
    offload: Offload = "none"
    overlap: bool = False

    @property
    def bucket(self) -> int:
        """Numbers in DeepSpeed's reduce bucket, both halves where communication overlaps (stages 1 and 2)."""
        return self.hidden**2 * (2 if self.overlap and self.zero < 3 else 1)


@dataclass(frozen=True)
class ModelStates:
    """Bytes on the GPU, and on the host where offloaded; `buckets` are there while gradients are reduced."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    buckets: int = 0
    host: int = 0


def partition(sizes: Sequence[int], sharding: Sharding) -> int:
    """Numbers of parameters of `sizes` that one process owns.

    DeepSpeed cuts a flat buffer in stages 1 and 2, aligned to two numbers a process, and every parameter in stage 3.
    """
    if sharding.zero == 0:
        return sum(sizes)
    if sharding.zero < 3:
        return 2 * math.ceil(sum(sizes) / (2 * sharding.processes))
    return sum(math.ceil(size / sharding.processes) for size in sizes)


def whole(sizes: Sequence[int], sharding: Sharding) -> int:
    """Numbers in parameters that ZeRO-3 keeps whole on every process, beside their partitions."""
    return sum(size for size in sizes if size <= 10 * sharding.hidden) if sharding.zero == 3 else 0


def model_states(
    trained: Sequence[int], frozen: Sequence[int], sharding: Sharding, precision: Precision
) -> ModelStates:
    """Return what one process holds of an engine with parameters of these sizes, once Adam's moments are there."""
    if sharding.zero == 0:
        return _replicated(sum(trained), sum(frozen), sharding.processes, precision)
    mine = partition(trained, sharding)
    stage3, offloaded = sharding.zero == 3, sharding.offload != "none"
    wide = precision.trained == 4
    master = 0 if stage3 and wide and not offloaded else 4 * mine  # float32 weights are stepped on as they are
    optimizer = master + 8 * mine
    gradients = precision.trained * (mine if sharding.zero > 1 else sum(trained))
    buckets = precision.trained * sharding.bucket if trained else 0
    if stage3:
        of_frozen = precision.frozen * partition(frozen, sharding)
        shares = precision.trained * mine + of_frozen
        kept = precision.trained * whole(trained, sharding) + precision.frozen * whole(frozen, sharding)
    else:
        shares, kept = precision.trained * mine * sharding.processes + precision.frozen * sum(frozen), 0
    if not offloaded:
        return ModelStates(shares + kept, gradients, optimizer, buckets)
    host = optimizer + (4 + precision.trained) * mine  # float32 gradients, and weights on their way back
    largest = precision.trained * max(trained, default=0)
    if sharding.offload == "all":
        return ModelStates(kept, 0, 0, buckets + largest, host + shares)
    return ModelStates(shares + kept, 0, 0, buckets + largest, host)


def _replicated(trained: int, frozen: int, processes: int, precision: Precision) -> ModelStates:
    """Everything everywhere; DDP has buckets as large as all gradients (`gradient_as_bucket_view` is off)."""
    gradients = precision.trained * trained
    return ModelStates(
        weights=gradients + precision.frozen * frozen,
        gradients=gradients,
        optimizer=2 * precision.trained * trained,
        buckets=gradients if processes > 1 else 0,
    )
