"""Rows without the padding on their left, so that a forward pass is as wide as its longest row.

TRL keeps a rollout as left-padded prompts (B, P) beside right-padded completions (B, C). Here a row is its prompt and
its completion without a gap, padded on the right only: positions count from zero, and a causal model needs no mask.
Left out: several rows in one (packing proper), which needs attention kernels that not every machine has.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packed(NamedTuple):
    """`ids`: (B, T), T as long as the longest row. `predicts`: (B, T), True where the next token is a completion's."""

    ids: Tensor
    predicts: Tensor

    @property
    def labels(self) -> Tensor:
        """The completion tokens of all rows behind each other: (N,), N = predicts.sum()."""
        return self.ids[:, 1:][self.predicts[:, :-1]]


def pack(ids: Tensor, mask: Tensor, width: int) -> Packed:
    """Pack rows of ids and mask, (B, P + C), of which the last `width` = C columns are the completions.

    A prompt holds at least one token: the first completion token is predicted from it.
    """
    padding = ids.size(1) - width - mask[:, :-width].sum(dim=1)  # (B,), left of the prompt
    lengths = mask.sum(dim=1)
    columns = torch.arange(int(lengths.max()), device=ids.device)
    places = (columns + padding[:, None]).clamp(max=ids.size(1) - 1)
    prompts = mask[:, :-width].sum(dim=1)
    predicts = (columns >= prompts[:, None] - 1) & (columns < lengths[:, None] - 1)
    real = columns < lengths[:, None]
    return Packed(torch.where(real, ids.gather(1, places), 0), predicts)


def unpack(flat: Tensor, mask: Tensor) -> Tensor:
    """Put numbers of the completion tokens (N,) back where `mask` (B, C) is True, zeros elsewhere."""
    return flat.new_zeros(mask.shape).masked_scatter(mask, flat)


def by_length(lengths: Tensor, size: int) -> list[Tensor]:
    """Places of rows in pieces of `size` rows of similar length, longest first: lack of memory shows at once."""
    return list(torch.split(lengths.argsort(descending=True, stable=True), size))
