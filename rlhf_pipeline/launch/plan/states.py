"""Bytes of weights, gradients, optimizer state and communication buffers that one process holds.

The partition is that of Rajbhandari et al. 2020 (ZeRO, section 5): Adam's state over the processes in stage 1,
gradients too in stage 2, weights too in stage 3. What is more than theory is what DeepSpeed 0.19 does: buckets, copies,
parameters too small to be cut, gradients of parameters that a share cuts; `benchmarks/zero_memory.py` measures it. Left
out: what lasts shorter than a backward pass (`memory`).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

Offload = Literal["none", "optimizer", "all"]

MAX_LIVE = 10**9
"""DeepSpeed's stage3_max_live_parameters: gathered weights that may be on a GPU at once."""
SUB_GROUP = 10**9
"""DeepSpeed's sub_group_size: weights that its ZeRO-3 optimizer steps at once."""


@dataclass(frozen=True)
class Precision:
    """Bytes of one number. `trained` and `frozen` weights; gradients and DDP's buckets are as wide as `trained`.

    bf16 under DeepSpeed is 2 and 2; autocast is 4 and 4.
    """

    trained: int = 4
    frozen: int = 4


@dataclass(frozen=True)
class Sharding:
    """How the states of one engine are shared out: `zero` 0 is DDP, or a process alone.

    `hidden` is the width that transformers and accelerate set DeepSpeed's `auto` by: a bucket of hidden^2 numbers,
    and parameters of up to 10 hidden numbers whole on every process in stage 3. `accumulating`: an optimizer step
    takes several micro-batches.
    """

    zero: int
    processes: int
    hidden: int
    offload: Offload = "none"
    overlap: bool = False
    accumulating: bool = False

    @property
    def bucket(self) -> int:
        """Numbers in DeepSpeed's reduce bucket, both halves where communication overlaps (stages 1 and 2)."""
        return self.hidden**2 * (2 if self.overlap and self.zero < 3 else 1)


@dataclass(frozen=True)
class ModelStates:
    """Bytes on the GPU when an optimizer step begins, and on the host where offloaded.

    `backward`: what gradients come to in the backward pass before. `buckets` are there while gradients are reduced, and
    under DDP and ZeRO-3 all the time.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    buckets: int = 0
    host: int = 0
    backward: int = 0


def partition(sizes: Sequence[int], sharding: Sharding) -> int:
    """Numbers of parameters of `sizes` that one process owns.

    DeepSpeed cuts a flat buffer in stages 1 and 2, aligned to two numbers a process, and every parameter in stage 3.
    """
    if sharding.zero == 0:
        return sum(sizes)
    if sharding.zero < 3:
        return 2 * math.ceil(sum(sizes) / (2 * sharding.processes))
    return sum(math.ceil(size / sharding.processes) for size in sizes)


def touched(sizes: Sequence[int], sharding: Sharding) -> int:
    """Numbers of the parameters that a share of stages 1 and 2 lies in, for the process where they are most.

    DeepSpeed keeps the gradients of these parameters whole, also of the ones that two shares cut.
    """
    share, ends = partition(sizes, sharding), [0, *accumulate(sizes)]
    found = []
    for start in range(0, ends[-1], max(share, 1)):
        first, last = bisect_right(ends, start) - 1, bisect_left(ends, start + share)
        found.append(ends[min(last, len(sizes))] - ends[first])
    return max(found, default=0)


def whole(sizes: Sequence[int], sharding: Sharding) -> int:
    """Numbers in parameters that ZeRO-3 keeps whole on every process, beside their partitions."""
    return sum(size for size in sizes if size <= 10 * sharding.hidden) if sharding.zero == 3 else 0


def model_states(
    trained: Sequence[int], frozen: Sequence[int], sharding: Sharding, precision: Precision
) -> ModelStates:
    """Return what one process holds of an engine with parameters of these sizes, once Adam's moments are there.

    Every stage steps a float32 copy of its share, of float32 weights too: stage 3 means to do without one there, but
    compares a torch.device with a string.
    """
    if sharding.zero == 0:
        return _replicated(sum(trained), sum(frozen), sharding.processes, precision)
    mine, width = partition(trained, sharding), precision.trained
    shares, kept = _weights(trained, frozen, sharding, precision)
    gradients, backward = _gradients(trained, sharding, width)
    optimizer = (4 + 2 * 4) * mine
    buckets = width * sharding.bucket if trained else 0
    if sharding.offload == "none":
        return ModelStates(shares + kept, gradients, optimizer, buckets, backward=backward)
    host = optimizer + (4 + width) * mine  # gradients in float32, and once as wide as weights: on their way, or weights
    host += gradients if sharding.zero == 2 and sharding.accumulating else 0
    left = backward if sharding.zero == 1 else 0  # stage 1 sends them to the host when all are there
    if sharding.offload == "all":
        return ModelStates(kept, 0, 0, buckets, host + shares, left)
    return ModelStates(shares + kept, 0, 0, buckets, host, left)


def _weights(
    trained: Sequence[int], frozen: Sequence[int], sharding: Sharding, precision: Precision
) -> tuple[int, int]:
    """Bytes of weights that can be offloaded in stage 3, and of those that stay whole beside their partitions."""
    mine = partition(trained, sharding)
    if sharding.zero < 3:
        return precision.trained * mine * sharding.processes + precision.frozen * sum(frozen), 0
    shares = precision.trained * mine + precision.frozen * partition(frozen, sharding)
    return shares, precision.trained * whole(trained, sharding) + precision.frozen * whole(frozen, sharding)


def _gradients(trained: Sequence[int], sharding: Sharding, width: int) -> tuple[int, int]:
    """Bytes of gradients when an optimizer step begins, and in the backward pass before it, without offload.

    Stage 1 reduces them when all are there. Stage 2 adds those of a micro-batch to the sum so far when it has them all.
    """
    if sharding.zero == 3:
        mine = width * partition(trained, sharding)
        return mine, mine
    mine = width * touched(trained, sharding)
    if sharding.zero == 1:
        return mine, width * sum(trained)
    return mine, (2 if sharding.accumulating else 1) * mine


def _replicated(trained: int, frozen: int, processes: int, precision: Precision) -> ModelStates:
    """Everything everywhere; DDP has buckets as large as all gradients (`gradient_as_bucket_view` is off)."""
    gradients = precision.trained * trained
    return ModelStates(
        weights=gradients + precision.frozen * frozen,
        gradients=gradients,
        optimizer=2 * precision.trained * trained,
        buckets=gradients if processes > 1 else 0,
        backward=gradients,
    )
