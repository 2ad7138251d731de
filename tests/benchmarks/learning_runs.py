"""Made-up runs whose curves are straight lines in sqrt(KL), and tiny checkpoints that contestants can really train."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.contestants import Run
from benchmarks.learning.task import WORLD, Task, write_prompts
from tests.tiny import make_classifier, make_llama

TINY = replace(WORLD, completion_tokens=6, updates=2, batch=8, epochs=2, learning_rate=1e-2)
SLOPE = 2.0
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
"""Glad words that a random model over bytes happens to write."""


def make_run(who: str, offset: float, seed: int = 1, task: Task = WORLD, furthest: float = 3.0) -> Run:
    """Reward is `offset` + 2 sqrt(KL); points are even in sqrt(KL), their number and places differ with the seed."""
    count = 12 + 3 * seed
    roots = [furthest * n / (count - 1) for n in range(count)]
    points = [{"kl_nats": root**2, "reward": offset + SLOPE * root, "completion_tokens": 5.0} for root in roots]
    versions = {"torch": "2", "trl": "1.12.0" if who == "trl" else "1.16.0"}
    facts = {"contestant": who, "task": asdict(replace(task, seed=seed)), "process_seconds": 1.0}
    return {**facts, "points": points, "mixed_precision": "no", "versions": versions}


def made_up(offsets: Mapping[str, float], seeds: int = 3, task: Task = WORLD) -> list[Run]:
    """Runs of several seeds, whose offsets spread by 0.1 around those given."""
    return [
        make_run(who, offset + 0.1 * (seed - (seeds + 1) / 2), seed, task)
        for who, offset in offsets.items()
        for seed in range(1, seeds + 1)
    ]


def make_folder(folder: Path, *, reward: bool) -> Path:
    """Write what a contestant reads: random models, and prompts of four tokens or, with a reward model, of any."""
    make_llama(folder / "policy", initializer_range=0.2)
    value: Any = make_classifier(folder / "value", seed=1, initializer_range=0.2)
    if reward:
        shutil.copytree(folder / "value", folder / "reward")
    else:
        torch.nn.init.zeros_(value.score.weight)
        value.save_pretrained(folder / "value")
    write_prompts(folder, [f"{n:03}{'abcdef'[: n % 6] if reward else ''}?" for n in range(280)], TINY.batch)
    return folder
