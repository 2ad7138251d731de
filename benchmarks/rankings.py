"""What the same comparisons cost as ranked groups, and as pairs in trl.RewardTrainer.

    python -m benchmarks.rankings [--repeats 5]      -> results/rankings.json

Both take the same model, the same completions in the same order, and as many comparisons in an optimizer step; a
forward pass holds about as many rows. The first step of both must have the same loss, or the comparison is refused.
Left out: what is learnt that way (`noisy_labellers.py`).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback, TrainerCallback
from trl import RewardConfig, RewardTrainer

from benchmarks.checkpoints import VOCABULARY, make_config, make_scorer, make_tokenizer
from benchmarks.contestants import ROOT
from benchmarks.provenance import describe_machine, describe_moment
from rlhf_pipeline.arguments import machine_defaults, quiet_libraries
from rlhf_pipeline.machine import keep_freed_memory
from rlhf_pipeline.ranking.trainer import RankingTrainer

RESULT = ROOT / "benchmarks" / "results" / "rankings.json"
M15 = {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 6, "num_attention_heads": 6}
WARM_UP = 1
"""Steps at the start of a run that do not count."""


@dataclass(frozen=True)
class Workload:
    """One optimizer step: `groups` prompts with `ranked` completions; how many pairs TRL takes in a forward pass."""

    ranked: int
    groups: int
    pairs_at_once: int
    prompt_tokens: int = 32
    completion_tokens: tuple[int, int] = (16, 32)
    steps: int = 3

    @property
    def pairs(self) -> int:
        """Comparisons of a step."""
        return self.groups * self.ranked * (self.ranked - 1) // 2


WORKLOADS = {"k4": Workload(4, 16, 32), "k9": Workload(9, 8, 36)}


class StepClock(TrainerCallback):
    """Collects the seconds of every optimizer step, with what lies between two of them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the first step."""
        self.began = perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """End a step, and start the next."""
        now = perf_counter()
        self.seconds.append(now - self.began)
        self.began = now


def make_groups(work: Workload, vocabulary: int = VOCABULARY) -> list[dict[str, Any]]:
    """Draw the groups of all steps, completions from best to worst."""
    draw = random.Random(0)
    pairs = list(combinations(range(work.ranked), 2))
    groups = []
    for _ in range(work.groups * work.steps):
        prompt = draw.choices(range(3, vocabulary), k=work.prompt_tokens)
        lengths = [draw.randint(*work.completion_tokens) for _ in range(work.ranked)]
        rows = [prompt + draw.choices(range(3, vocabulary), k=length) for length in lengths]
        better, worse = (list(side) for side in zip(*pairs, strict=True))
        group = {"input_ids": rows, "better": better, "worse": worse}
        groups.append(
            {**group, "margin": [0.0] * len(pairs), "tied": [False] * len(pairs), "length": max(map(len, rows))}
        )
    return groups


def explode(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make every comparison a row of its own, as trl.RewardTrainer takes them."""
    return [
        {"chosen_ids": group["input_ids"][better], "rejected_ids": group["input_ids"][worse]}
        for group in groups
        for better, worse in zip(group["better"], group["worse"], strict=True)
    ]


def make_trainer(who: str, work: Workload, groups: list[dict[str, Any]], model: Any, folder: str) -> RewardTrainer:
    """Make one of the two trainers, `groups` or `pairs`."""
    ours = who == "groups"
    size = work.groups if ours else work.pairs_at_once
    settings: dict[str, Any] = {
        **machine_defaults(),
        "output_dir": folder,
        "max_steps": work.steps,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": 1 if ours else work.pairs // size,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
    }
    rows = groups if ours else explode(groups)
    trainer: type[RewardTrainer] = RankingTrainer if ours else RewardTrainer
    return trainer(
        model=model,
        args=RewardConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=make_tokenizer(int(model.config.vocab_size)),
    )


def run_once(who: str, work: Workload, groups: list[dict[str, Any]], size: dict[str, int]) -> dict[str, Any]:
    """Train a fresh model for the steps of `work`: seconds of each step after the warm-up, and the first loss."""
    model = make_scorer(make_config(VOCABULARY, **size), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        trainer, clock = make_trainer(who, work, groups, model, folder), StepClock()
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"who": who, "seconds": clock.seconds[WARM_UP:], "first_loss": losses[0]}


def compare(work: Workload, repeats: int, size: dict[str, int]) -> list[dict[str, Any]]:
    """Let both run in turn, every second repeat backwards; refuse runs whose first step is not the same."""
    groups, runs = make_groups(work), []
    for repeat in range(repeats):
        for who in ("pairs", "groups")[:: 1 if repeat % 2 == 0 else -1]:
            run = {"repeat": repeat, **run_once(who, work, groups, size)}
            print(
                f"K = {work.ranked}  {repeat + 1}/{repeats}  {who:<6} {statistics.mean(run['seconds']):6.2f} s a step"
            )
            runs.append(run)
    losses = [run["first_loss"] for run in runs]
    if max(losses) - min(losses) > 1e-3:
        raise SystemExit(f"error: first losses differ, so the work is not the same: {losses}")
    return runs


def ratios(runs: Sequence[dict[str, Any]]) -> list[float]:
    """Pair each step of `pairs` with the same step of the same repeat of `groups`: seconds over seconds."""
    found = {(run["repeat"], run["who"]): run["seconds"] for run in runs}
    return [
        theirs / ours
        for repeat in sorted({repeat for repeat, _ in found})
        for theirs, ours in zip(found[repeat, "pairs"], found[repeat, "groups"], strict=True)
    ]


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """Summarise samples by the smallest, middle and largest."""
    return {
        "min": round(min(samples), 2),
        "median": round(statistics.median(samples), 2),
        "max": round(max(samples), 2),
        "samples": len(samples),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, and write `RESULT`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    prepare_process()
    facts = {"machine": describe_machine(), **describe_moment(), "threads": torch.get_num_threads()}
    runs = {name: compare(work, arguments.repeats, M15) for name, work in WORKLOADS.items()}
    spreads = {name: spread(ratios(found)) for name, found in runs.items()}
    result = {
        "ratio": {name: found["median"] for name, found in spreads.items()},
        "spread": spreads,
        "rows_forward_ideal": {name: work.ranked - 1 for name, work in WORKLOADS.items()},
        "workload": {name: {**asdict(work), "pairs": work.pairs} for name, work in WORKLOADS.items()},
        "model": M15,
        "precision": "float32",
        **facts,
        "runs": runs,
    }
    write(result, RESULT)
    print(json.dumps(result["ratio"]))


def prepare_process() -> None:
    """Give this process the settings of a stage on a CPU, and no bars of libraries."""
    quiet_libraries()
    disable_progress_bars()
    keep_freed_memory()


def write(result: dict[str, Any], file: Path) -> None:
    """Write a result as JSON."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
