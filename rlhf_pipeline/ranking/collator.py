"""Groups to batches: the completions of G groups become R rows, right-padded, of one forward pass.

| of a batch       | shape  |                                                                    |
|------------------|--------|--------------------------------------------------------------------|
| `comparisons`    | (G,)   | how many each group has, at least 1                                |
| `completions`    | (G,)   | how many different ones each group has                             |
| `input_ids`      | (R, T) | prompt and completion, one group's rows after the other            |
| `attention_mask` | (R, T) | 1 where a token counts                                             |
| `better`         | (N,)   | row of the better completion of each comparison, or one of a tie's |
| `worse`          | (N,)   | row of the other                                                   |
| `margin`         | (N,)   | by how much the better one shall lead                              |
| `tied`           | (N,)   | True where both have the same rank                                 |

`comparisons` stands first: transformers takes the length of the first tensor for the size of a batch, and weighs
losses of evaluation by it. Left out: how records become groups (`prepared.ranking_encoder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

GROUP = ("input_ids", "better", "worse", "margin", "tied")
"""What a group holds: rows of ids, and a list of each column of its comparisons, which name its rows from 0."""


@dataclass(frozen=True)
class GroupCollator:
    """Collate groups of any K; with `pad_to_multiple_of` the width T is rounded up to a multiple of it."""

    pad_token_id: int
    pad_to_multiple_of: int | None = None

    def __call__(self, groups: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Make the batch that this module's table shows."""
        completions = torch.tensor([len(group["input_ids"]) for group in groups])
        comparisons = torch.tensor([len(group["better"]) for group in groups])
        first_row = torch.repeat_interleave(completions.cumsum(0) - completions, comparisons)
        input_ids, attention_mask = self._pad([row for group in groups for row in group["input_ids"]])
        return {
            "comparisons": comparisons,
            "completions": completions,
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "better": _joined(groups, "better", torch.long) + first_row,
            "worse": _joined(groups, "worse", torch.long) + first_row,
            "margin": _joined(groups, "margin", torch.float),
            "tied": _joined(groups, "tied", torch.bool),
        }

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(row) for row in rows])
        step = self.pad_to_multiple_of or 1
        width = -(-int(lengths.max()) // step) * step
        ids = torch.tensor([[*row, *[self.pad_token_id] * (width - len(row))] for row in rows])
        return ids, (torch.arange(width) < lengths.unsqueeze(1)).long()


def _joined(groups: Sequence[dict[str, Any]], name: str, dtype: torch.dtype) -> Tensor:
    return torch.tensor([value for group in groups for value in group[name]], dtype=dtype)
