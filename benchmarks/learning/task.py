"""What is learned and with which budget, as one value that travels to a contestant's process as JSON.

    <folder>/<task>/policy    where both sides start, and their reference
    <folder>/<task>/value     where both critics start, a sequence classifier with one label
    <folder>/<task>/reward    a reward model of the same form; without it the reward is that of `sentiment.py`
    <folder>/<task>/prompts.json    {"train": [...], "measured": [...]}, texts

Every number here is given to both sides; whatever they have no common setting for stays as each ships it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arguments import read_arguments, write_arguments

MEASURED = 256
"""Prompts that are kept from training, and sampled once at every measurement."""


@dataclass(frozen=True)
class Task:
    """So many updates of `batch` completions each, taken whole as one minibatch in each of `epochs` epochs."""

    name: str
    completion_tokens: int
    kl_coef: float
    learning_rate: float
    updates: int = 24
    batch: int = 128
    epochs: int = 4
    temperature: float = 1.0
    vf_coef: float = 0.5
    cliprange_value: float = 5.0
    adam_epsilon: float = 1e-5
    seed: int = 1


WORLD = Task("world", completion_tokens=32, kl_coef=0.05, learning_rate=3e-4)
STORIES = Task("stories", completion_tokens=32, kl_coef=0.1, learning_rate=2e-4)
TASKS = {task.name: task for task in (WORLD, STORIES)}


def to_arguments(task: Task, folder: Path) -> list[str]:
    """Write the command-line arguments that `from_arguments` reads."""
    return write_arguments(task, folder / task.name)


def from_arguments(argv: Sequence[str], *flags: str) -> tuple[Task, Path, argparse.Namespace]:
    """Read the task, its folder, and switches of the contestant's own."""
    return read_arguments(Task, argv, *flags)


def read_prompts(folder: Path, purpose: str) -> list[str]:
    """Read the prompts to `train` on, or those that are `measured`."""
    prompts: list[str] = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))[purpose]
    return prompts


def write_prompts(folder: Path, prompts: Sequence[str], batch: int) -> None:
    """Keep the last prompts for measurements, train on the others; raises ValueError for less than one batch."""
    if len(prompts) < MEASURED + batch:
        raise ValueError(f"{len(prompts)} prompts are no {MEASURED} to measure and a batch of {batch} to train on")
    parts = {"train": list(prompts[:-MEASURED]), "measured": list(prompts[-MEASURED:])}
    (folder / "prompts.json").write_text(json.dumps(parts), encoding="utf-8")
