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

    def note_completions(self, mode: str, **per_completion: Tensor) -> dict[str, float]:
        """Add figures with one number a completion, (B,) on every rank: their means, which are returned.

        Of `score` also its spread, and its correlation with `completion_tokens`, zero where either never varies.
        """
        everywhere = {name: self.accelerator.gather(values) for name, values in per_completion.items()}
        figures = {name: float(values.mean()) for name, values in everywhere.items()}
        figures["score_std"] = float(everywhere["score"].std(correction=0))
        figures["score_length_correlation"] = correlation(everywhere["score"], everywhere["completion_tokens"])
        for name, value in figures.items():
            self.note(mode, name, value)
        if mode == "eval":
            for name, values in everywhere.items():
                self.held_out[name].extend(values.tolist())
        return figures

    def add_micro_batch(self, tokens: float, **totals: float) -> None:
        """Add a micro-batch's totals to its minibatch's means; `tokens` is the count of the whole minibatch."""
        for name, total in totals.items():
            self._minibatch[name] += total / tokens

    def close_minibatch(self, mode: str, *, first: bool) -> None:
        """Add the means of a minibatch; the ratio of a rollout's `first` one has a figure of its own."""
        for name, mean in self._minibatch.items():
            self.note(mode, f"first_{name}" if first and name == "ratio_abs_log" else name, mean)
        self._minibatch.clear()

    def over_completions(self, prompts: int) -> dict[str, float]:
        """Every held-out mean and half the width of its 95 % interval, over the completions of `prompts` prompts.

        What fills up the last batch of several ranks comes behind them, and is left out.
        """
        numbers = {name: torch.tensor(values[:prompts]) for name, values in self.held_out.items()}
        means = {f"eval_ppo/{name}": x.mean().item() for name, x in numbers.items()}
        several = {name: x for name, x in numbers.items() if len(x) > 1}
        return {
            **means,
            **{f"eval_ppo/{name}_ci95": Z95 * x.std().item() / math.sqrt(len(x)) for name, x in several.items()},
        }


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of two (B,) tensors; zero where either never varies."""
    x, y = (z.double() - z.double().mean() for z in (x, y))
    norm = float(x.norm() * y.norm())
    return float(x @ y) / norm if norm > 0 else 0.0
