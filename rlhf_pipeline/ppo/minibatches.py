"""Cut a rollout into minibatches and micro-batches, every epoch anew.

Which completions share a minibatch is left to chance; inside one, rows of similar length share a micro-batch, and its
micro-batches are of similar size, so that little padding is computed and no micro-batch needs more memory than another.
`per_device_train_batch_size` is the mean number of rows in one. Left out: splitting a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlhf_pipeline.ppo.masked import Reduce

Batch = dict[str, Any]


def cut(rollout: Batch, order: Tensor, micro_batches: int, per_minibatch: int, longest: Reduce) -> list[Batch]:
    """Cut the rows of `rollout`, taken in `order` (B,), into `micro_batches`.

    `per_minibatch` of them in a row are one minibatch: an equal share of the rows, however long, whose micro-batches
    are of similar size in tokens. `longest` turns falling lengths (B,) into the largest of all ranks in each place, so
    that every rank cuts alike: TRL gathers a figure of each row. Tensors of the rollout have their rows in the first
    dimension; numbers stand in every micro-batch.
    """
    lengths = rollout["prompt_mask"].sum(dim=1) + rollout["completion_mask"].sum(dim=1)
    places: list[Tensor] = []
    for minibatch in torch.split(order, len(order) * per_minibatch // micro_batches):
        by_length = minibatch[lengths[minibatch].argsort(descending=True, stable=True)]
        places += torch.split(by_length, even_cuts(longest(lengths[by_length]).tolist(), per_minibatch))
    return [{name: x[rows] if x.ndim else x for name, x in rollout.items()} for rows in places]


def even_cuts(lengths: list[int], pieces: int) -> list[int]:
    """Cut rows of falling `lengths` into `pieces`, the largest as small as can be; returns the rows of each.

    A piece is as large as its rows times the length of its first, since all are padded to that.
    """
    low, high = lengths[0], lengths[0] * len(lengths)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_filled(lengths, middle)) <= pieces else (middle + 1, high)
    sizes = _filled(lengths, low)
    while len(sizes) < pieces:
        largest = sizes.index(max(sizes))
        half = sizes[largest] // 2
        sizes[largest : largest + 1] = [sizes[largest] - half, half]
    return sizes


def _filled(lengths: list[int], capacity: int) -> list[int]:
    """Fill one piece after the other with rows, up to `capacity`; returns the rows of each."""
    sizes, first = [], 0
    while first < len(lengths):
        sizes.append(min(capacity // lengths[first], len(lengths) - first))
        first += sizes[-1]
    return sizes


def count_tokens(micro_batches: list[Batch], per_minibatch: int, reduce: Reduce) -> None:
    """Tell every micro-batch the `minibatch_tokens` of its whole minibatch on all ranks, for the losses to divide by.

    TRL divides its loss by num_items_in_batch * gradient_accumulation_steps / steps_per_generation; the inverse share
    set here makes that the minibatch's own count.
    """
    for start in range(0, len(micro_batches), per_minibatch):
        minibatch = micro_batches[start : start + per_minibatch]
        tokens = reduce(torch.stack([part["completion_mask"].sum() for part in minibatch]).sum())
        for part in minibatch:
            part["minibatch_tokens"] = tokens
            part["num_items_in_batch"] = tokens * len(micro_batches) / per_minibatch
