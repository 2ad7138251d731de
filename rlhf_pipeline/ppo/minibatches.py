"""Cut a rollout into minibatches and micro-batches, every epoch anew.

Which completions share a minibatch is left to chance; inside one, rows of similar length share a micro-batch, so that
little padding is computed. Left out: micro-batches of unequal numbers of rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlhf_pipeline.ppo.masked import Reduce

Batch = dict[str, Any]


def cut(rollout: Batch, order: Tensor, micro_batches: int, per_minibatch: int) -> list[Batch]:
    """Cut the rows of `rollout`, taken in `order` (B,), into `micro_batches` of equal size.

    `per_minibatch` of them in a row are one minibatch; its rows are sorted by length, longest first. Tensors of the
    rollout have their rows in the first dimension; numbers stand in every micro-batch.
    """
    lengths = rollout["prompt_mask"].sum(dim=1) + rollout["completion_mask"].sum(dim=1)
    size = len(order) // micro_batches
    places: list[Tensor] = []
    for minibatch in torch.split(order, size * per_minibatch):
        by_length = lengths[minibatch].argsort(descending=True, stable=True)
        places += torch.split(minibatch[by_length], size)
    return [{name: x[rows] if x.ndim else x for name, x in rollout.items()} for rows in places]


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
