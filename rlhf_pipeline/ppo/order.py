"""The order in which prompts come, so that a resumed run sees them as an unbroken one does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):
    """TRL's sampler, drawing a fresh permutation from seed + epoch whenever an epoch begins.

    TRL's own draws the next one from a generator that a resumed run does not have.
    """

    def __init__(self, sampler: Any, epoch: Callable[[], int]) -> None:
        names = list(inspect.signature(RepeatSampler).parameters)
        super().__init__(**{name: getattr(sampler, name) for name in names})
        self.epoch = epoch
        self.first_seed: int = sampler.seed or 0

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed(self.first_seed + self.epoch())
        return super().__iter__()  # type: ignore[no-untyped-call,no-any-return]
