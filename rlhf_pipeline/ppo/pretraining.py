"""PPO-ptx: rows of pretraining text beside every micro-batch, whose loss keeps the policy a language model.

InstructGPT adds ptx_coef * E[-log p(x)] to PPO's objective (Ouyang et al. 2022, equation 2; 27.8 in appendix C.4). Here
the expectation is over the tokens of a minibatch's pretraining rows, at temperature 1. Left out: another number of rows
than the micro-batch has completions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlhf_pipeline.ppo.packing import Packed


class PretrainingRows:
    """Token ids of pretraining text, drawn without end, each epoch in an order of its own.

    What is drawn depends on seed and micro-step alone, so that a resumed run goes on where it was. `size` rows a
    micro-batch and process, of `ranks` processes.
    """

    def __init__(self, rows: Sequence[Sequence[int]], *, size: int, rank: int, ranks: int, seed: int) -> None:
        self.rows = rows
        self.size, self.rank, self.ranks, self.seed = size, rank, ranks, seed
        self._epoch, self._order = -1, torch.empty(0)

    def micro_batch(self, micro_step: int, device: torch.device) -> Packed:
        """This process's rows of one micro-step, padded on the right; every token but a row's first is predicted."""
        rows = [self.rows[i] for i in self._drawn(micro_step, self.rank)]
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row)
        predicts = torch.arange(ids.size(1)) < lengths[:, None] - 1
        return Packed(ids.to(device), predicts.to(device))

    def tokens(self, micro_steps: range) -> int:
        """Count the predicted tokens of some micro-steps over all processes."""
        drawn = (i for step in micro_steps for rank in range(self.ranks) for i in self._drawn(step, rank))
        return sum(len(self.rows[i]) - 1 for i in drawn)

    def _drawn(self, micro_step: int, rank: int) -> list[int]:
        first = (micro_step * self.ranks + rank) * self.size
        return [self._place(n) for n in range(first, first + self.size)]

    def _place(self, n: int) -> int:
        epoch, place = divmod(n, len(self.rows))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.rows), generator=generator)
        return int(self._order[place])
