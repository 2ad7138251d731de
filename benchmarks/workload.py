"""What every contestant is given to do, as one value that travels to its process as JSON.

Left out: how a contestant cuts the work into micro-batches, which is its own affair.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arguments import read_arguments, write_arguments

CASES = ("full", "early")
EARLY_SHARE = 0.4
"""Mean length of the completions of `early`, as a share of the longest."""


@dataclass(frozen=True)
class Workload:
    """A few PPO updates, each on all prompts; in the case `full` no completion ends before its last token."""

    case: str = "full"
    prompts: int = 64
    prompt_tokens: int = 32
    completion_tokens: int = 64
    epochs: int = 4
    updates: int = 3
    learning_rate: float = 1e-5
    temperature: float = 1.0
    seed: int = 1


def to_arguments(workload: Workload, folder: Path) -> list[str]:
    """Write the command-line arguments that `from_arguments` reads."""
    return write_arguments(workload, folder)


def from_arguments(argv: Sequence[str], *flags: str) -> tuple[Workload, Path, argparse.Namespace]:
    """Read the work, the folder of models and prompts, and switches of the contestant's own."""
    return read_arguments(Workload, argv, *flags)


def read_prompts(folder: Path, workload: Workload) -> list[str]:
    """Read the prompts of a workload; raises ValueError where there are too few."""
    file = folder / f"{workload.case}.json"
    prompts: list[str] = json.loads(file.read_text(encoding="utf-8"))
    if len(prompts) < workload.prompts:
        raise ValueError(f"{file} holds {len(prompts)} prompts, not {workload.prompts}")
    return prompts[: workload.prompts]
