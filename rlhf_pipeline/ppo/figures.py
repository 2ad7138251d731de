"""The numbers of a PPO run, as TRL logs them: named ppo/<what>, over real tokens only, over all ranks.

Left out: showing and storing them (TRL's `log`, the callbacks behind it).
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

Z95 = 1.959964
"""Standard errors that a 95 % interval of a normal mean reaches to either side."""


class Figures:
    """Collects figures into TRL's metrics, `{"train": {name: values}, "eval": ...}`, averaged there at every log."""

    def __init__(self, accelerator: Any, metrics: dict[str, Any]) -> None:
        self.accelerator = accelerator
        self.metrics = metrics
        self.held_out: dict[str, list[float]] = defaultdict(list)  # one number a completion, of this evaluation
        self._minibatch: dict[str, float] = defaultdict(float)

    def note(self, mode: str, name: str, value: float | Tensor) -> None:
        """Add one value of a figure; `mode` is train or eval."""
        self.metrics[mode][f"ppo/{name}"].append(float(value))

    def note_completions(self, mode: str, **per_completion: Tensor) -> None:
        """Add figures with one number a completion, (B,) on every rank: their mean, and the spread of the score."""
        for name, values in per_completion.items():
            everywhere: Tensor = self.accelerator.gather(values)
            self.note(mode, name, everywhere.mean())
            if name == "score":
                self.note(mode, "score_std", everywhere.std(correction=0))
            if mode == "eval":
                self.held_out[name].extend(everywhere.tolist())

    def add_micro_batch(self, tokens: float, **totals: float) -> None:
        """Add a micro-batch's totals to its minibatch's means; `tokens` is the count of the whole minibatch."""
        for name, total in totals.items():
            self._minibatch[name] += total / tokens

    def close_minibatch(self, mode: str, *, first: bool) -> None:
        """Add the means of a minibatch; the ratio of a rollout's `first` one has a figure of its own."""
        for name, mean in self._minibatch.items():
            self.note(mode, f"first_{name}" if first and name == "ratio_abs_log" else name, mean)
        self._minibatch.clear()

    def intervals(self) -> dict[str, float]:
        """Half the width of the 95 % interval of every held-out mean, over completions (one a prompt)."""
        numbers = {name: torch.tensor(values) for name, values in self.held_out.items() if len(values) > 1}
        return {f"eval_ppo/{name}_ci95": Z95 * x.std().item() / math.sqrt(len(x)) for name, x in numbers.items()}
