"""The order of prompts depends on seed and epoch alone."""

from __future__ import annotations

from trl.trainer.utils import RepeatSampler

from rlhf_pipeline.ppo.order import EpochSampler

ROWS = list(range(12))


def order(epoch: int, seed: int = 3) -> list[int]:
    return list(EpochSampler(RepeatSampler(ROWS, 1, batch_size=4, repeat_count=1, seed=seed), lambda: epoch))


def test_a_later_epoch_needs_no_history() -> None:
    epoch = 0
    sampler = EpochSampler(RepeatSampler(ROWS, 1, batch_size=4, repeat_count=1, seed=3), lambda: epoch)
    first = list(sampler)
    epoch = 1
    assert list(sampler) == order(1)
    assert first == order(0) != order(1)


def test_the_first_epoch_is_trls_own() -> None:
    assert order(0) == list(RepeatSampler(ROWS, 1, batch_size=4, repeat_count=1, seed=3))


def test_every_row_once_and_another_seed_another_order() -> None:
    assert sorted(order(5)) == ROWS
    assert order(0, seed=4) != order(0, seed=3)
