"""What both kinds of contestants report of a run, taken the same way, and how it reaches the benchmark.

An update lasts from one log to the next on the wall clock, so whatever a trainer does between its phases counts too.
Left out: what the phases are; each contestant reads them where its trainer shows them.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers import TrainerCallback

MIB = 2**20
VERSIONS = ("torch", "transformers", "trl", "accelerate")


class UpdateClock(TrainerCallback):
    """Collects one record an update: its seconds, what `phases_of` reads from the log, and the memory in use after it.

    `phases_of` returns None for a log that ends no update.
    """

    def __init__(self, phases_of: Callable[[Mapping[str, Any]], dict[str, float] | None]) -> None:
        self.phases_of = phases_of
        self.updates: list[dict[str, float]] = []
        self.began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the first update."""
        self.began = perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """End an update, and start the next."""
        phases = self.phases_of(logs or {})
        if phases is not None:
            now = perf_counter()
            self.updates.append({"seconds": now - self.began, **phases, "rss_mib": resident_mib()})
            self.began = now


def resident_mib() -> float:
    """Memory of this process in use now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / MIB


def print_run(clock: UpdateClock, mixed_precision: str) -> None:
    """Print the run as one line of JSON, the last that a contestant prints."""
    run = {
        "updates": clock.updates,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "mixed_precision": mixed_precision,
        "versions": {name: version(name) for name in VERSIONS},
    }
    print(json.dumps(run), flush=True)
