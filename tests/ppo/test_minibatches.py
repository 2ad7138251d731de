"""A rollout cut into minibatches: by the order given, sorted by length inside, counted over all ranks."""

from __future__ import annotations

from typing import Any

import torch

from rlhf_pipeline.ppo.masked import one_rank
from rlhf_pipeline.ppo.minibatches import count_tokens, cut

LENGTHS = [1, 4, 2, 3, 4, 1, 3, 2]


def rollout() -> dict[str, Any]:
    """Eight completions of LENGTHS tokens behind prompts of two; `row` tells which is which."""
    mask = (torch.arange(4) < torch.tensor(LENGTHS)[:, None]).long()
    return {
        "row": torch.arange(8), "prompt_mask": torch.ones(8, 2).long(), "completion_mask": mask,
        "num_items_in_batch": torch.tensor(20),
    }  # fmt: skip


def test_minibatches_follow_the_order_and_are_sorted_inside() -> None:
    parts = cut(rollout(), torch.tensor([7, 0, 1, 2, 6, 5, 4, 3]), micro_batches=4, per_minibatch=2)
    assert [part["row"].tolist() for part in parts] == [[1, 7], [2, 0], [4, 6], [3, 5]]
    assert all(part["num_items_in_batch"] == 20 for part in parts)


def test_every_micro_batch_knows_the_tokens_of_its_minibatch() -> None:
    parts = cut(rollout(), torch.arange(8), micro_batches=4, per_minibatch=2)
    count_tokens(parts, 2, one_rank)
    assert [int(part["minibatch_tokens"]) for part in parts] == [10, 10, 10, 10]
    parts = cut(rollout(), torch.tensor([1, 3, 4, 6, 0, 2, 5, 7]), micro_batches=4, per_minibatch=2)
    count_tokens(parts, 2, lambda total: total + 100)
    assert [int(part["minibatch_tokens"]) for part in parts] == [114, 114, 106, 106]
    # what TRL makes of it: num_items_in_batch * gradient_accumulation_steps / steps_per_generation
    assert [float(part["num_items_in_batch"]) * 2 / 4 for part in parts] == [114, 114, 106, 106]
