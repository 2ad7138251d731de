"""A moving average of the policy's weights, as InstructGPT published (Ouyang et al. 2022, appendix C: decay 0.992).

After every optimizer step: average = decay * average + (1 - decay) * weight. Left out: averages of the critic, a decay
that warms up, ZeRO-3 (no process holds the weights).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter
from transformers import TrainerCallback

AVERAGE_FILE = "policy_average.safetensors"


class MovingAverage(TrainerCallback):
    """The average of `parameters`, by name, in at least float32; a callback of the trainer that moves them."""

    def __init__(self, parameters: Mapping[str, Parameter], decay: float) -> None:
        self.parameters = dict(parameters)
        self.decay = decay
        self.average = {name: _in_float(p.detach()).clone() for name, p in parameters.items()}

    @torch.no_grad()
    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Follow the weights by one optimizer step."""
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(_in_float(parameter), 1 - self.decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average where the weights are, for a while."""
        weights = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._write(self.average)
        try:
            yield
        finally:
            self._write(weights)

    @torch.no_grad()
    def _write(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    def save(self, folder: Path) -> None:
        """Write the average into a checkpoint folder."""
        save_file({name: x.contiguous() for name, x in self.average.items()}, folder / AVERAGE_FILE)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint folder."""
        for name, saved in load_file(folder / AVERAGE_FILE).items():
            self.average[name].copy_(saved)


def _in_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
