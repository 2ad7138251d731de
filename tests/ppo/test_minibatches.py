"""A rollout cut into minibatches: by the order given, sorted by length inside, counted over all ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_pipeline.ppo.masked import one_rank
from rlhf_pipeline.ppo.minibatches import count_tokens, cut, even_cuts

LENGTHS = [1, 4, 2, 3, 4, 1, 3, 2]


def rollout() -> dict[str, Any]:
    """Eight completions of LENGTHS tokens behind prompts of two; `row` tells which is which."""
    mask = (torch.arange(4) < torch.tensor(LENGTHS)[:, None]).long()
    return {
        "row": torch.arange(8), "prompt_mask": torch.ones(8, 2).long(), "completion_mask": mask,
        "num_items_in_batch": torch.tensor(20),
    }  # fmt: skip


def test_minibatches_follow_the_order_and_are_sorted_inside() -> None:
    parts = cut(rollout(), torch.tensor([7, 0, 1, 2, 6, 5, 4, 3]), micro_batches=4, per_minibatch=2, longest=one_rank)
    assert [part["row"].tolist() for part in parts] == [[1, 7], [2, 0], [4, 6], [3, 5]]
    assert all(part["num_items_in_batch"] == 20 for part in parts)


def test_two_ranks_cut_alike_however_long_their_rows_are() -> None:
    lengths = [[9, 9, 1, 1], [5, 5, 5, 5]]
    longest = torch.tensor(lengths).amax(dim=0)
    sizes = []
    for mine in lengths:
        mask = torch.tensor([[1] * n + [0] * (9 - n) for n in mine])
        ranked = {"prompt_mask": torch.zeros(4, 1, dtype=torch.int64), "completion_mask": mask}
        parts = cut(ranked, torch.arange(4), micro_batches=2, per_minibatch=2, longest=lambda _: longest)
        sizes.append([len(part["completion_mask"]) for part in parts])
    assert sizes[0] == sizes[1] and sum(sizes[0]) == 4


def test_every_micro_batch_knows_the_tokens_of_its_minibatch() -> None:
    parts = cut(rollout(), torch.arange(8), micro_batches=4, per_minibatch=2, longest=one_rank)
    count_tokens(parts, 2, one_rank)
    assert [int(part["minibatch_tokens"]) for part in parts] == [10, 10, 10, 10]
    parts = cut(rollout(), torch.tensor([1, 3, 4, 6, 0, 2, 5, 7]), micro_batches=4, per_minibatch=2, longest=one_rank)
    count_tokens(parts, 2, lambda total: total + 100)
    assert [int(part["minibatch_tokens"]) for part in parts] == [114, 114, 106, 106]
    # what TRL makes of it: num_items_in_batch * gradient_accumulation_steps / steps_per_generation
    assert [float(part["num_items_in_batch"]) * 2 / 4 for part in parts] == [114, 114, 106, 106]


@pytest.mark.parametrize(
    ("lengths", "pieces", "expected"),
    [
        ([8, 8, 8, 8], 2, [2, 2]),
        ([9, 3, 3, 2, 1], 2, [1, 4]),  # 9 and 4 x 3, not 3 x 9
        ([5, 5, 5], 3, [1, 1, 1]),
        ([100, 1, 1, 1], 3, [1, 2, 1]),
        ([4], 1, [1]),
    ],
)
def test_the_largest_piece_is_as_small_as_can_be(lengths: list[int], pieces: int, expected: list[int]) -> None:
    assert even_cuts(lengths, pieces) == expected


def test_no_cut_is_better_than_the_even_one() -> None:
    """Against every way to cut, on random lengths."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        lengths = sorted(torch.randint(1, 30, (7,), generator=draw).tolist(), reverse=True)
        sizes = even_cuts(lengths, 3)
        assert sum(sizes) == 7
        assert min(sizes) > 0
        assert _largest(lengths, sizes) == min(
            _largest(lengths, [a, b, 7 - a - b]) for a in range(1, 6) for b in range(1, 7 - a)
        )


def _largest(lengths: list[int], sizes: list[int]) -> int:
    firsts = [sum(sizes[:n]) for n in range(len(sizes))]
    return max(size * lengths[first] for size, first in zip(sizes, firsts, strict=True))
