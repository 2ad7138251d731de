"""Random groups, and trainers on a tiny random reward model: ours, and TRL's on the same pairs."""

from __future__ import annotations

import random
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from rlhf_pipeline.ranking.trainer import RankingTrainer
from tests.tiny import make_classifier, make_tokenizer

Group = dict[str, Any]

QUIET = {
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "logging_strategy": "no",
    "save_strategy": "no",
    "dataloader_pin_memory": False,
}


def random_row(draw: random.Random) -> list[int]:
    """Three to twelve tokens, none of them pad or EOS."""
    return [draw.randrange(2, 258) for _ in range(draw.randint(3, 12))]


def make_group(rows: list[list[int]], ranks: list[int], scores: list[float] | None = None) -> Group:
    """A group with all its comparisons, ties too; margins are differences of `scores`, 0 without them."""
    best_first = [(a, b) if ranks[a] <= ranks[b] else (b, a) for a, b in combinations(range(len(rows)), 2)]
    scores = scores or [0.0] * len(rows)
    tied = [ranks[a] == ranks[b] for a, b in best_first]
    return {
        "input_ids": rows,
        "better": [a for a, _ in best_first],
        "worse": [b for _, b in best_first],
        "margin": [0.0 if tie else scores[a] - scores[b] for (a, b), tie in zip(best_first, tied, strict=True)],
        "tied": tied,
        "length": max(map(len, rows)),
    }


def random_groups(seed: int, sizes: list[int], *, ties: bool = False, margins: bool = False) -> list[Group]:
    """One group of each size, all ranks different unless `ties`."""
    draw = random.Random(seed)
    groups = []
    for size in sizes:
        ranks = [draw.randrange(3) for _ in range(size)] if ties else draw.sample(range(size), size)
        scores = [draw.uniform(0, 2) - rank for rank in ranks] if margins else None
        groups.append(make_group([random_row(draw) for _ in range(size)], ranks, scores))
    return groups


def exploded(groups: list[Group]) -> list[dict[str, Any]]:
    """The pairs of groups as trl.RewardTrainer takes them."""
    return [
        {"chosen_ids": group["input_ids"][a], "rejected_ids": group["input_ids"][b], "margin": margin}
        for group in groups
        for a, b, margin in zip(group["better"], group["worse"], group["margin"], strict=True)
    ]


def make_config(folder: Path, **changes: Any) -> RewardConfig:
    """Batches of four in the order of the data."""
    settings = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "train_sampling_strategy": "sequential",
        "max_steps": 1,
        **QUIET,
    }
    with warnings.catch_warnings():
        # transformers renames it in v6, TRL still has it under the old name: remove once TRL does not
        warnings.filterwarnings("ignore", message="`gradient_checkpointing", category=FutureWarning)
        return RewardConfig(**{**settings, **changes})


def make_trainer(
    folder: Path, groups: list[Group], *, held_out: list[Group] | None = None, label_smoothing: float = 0.0,
    dtype: torch.dtype = torch.float32, **changes: Any,
) -> RankingTrainer:  # fmt: skip
    """Our trainer on `groups`; the model is the same each time."""
    return RankingTrainer(
        label_smoothing=label_smoothing,
        model=make_classifier().to(dtype),
        args=make_config(folder, **changes),
        train_dataset=Dataset.from_list(groups),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        processing_class=make_tokenizer(),
    )


def make_trl(folder: Path, pairs: list[dict[str, Any]], **changes: Any) -> RewardTrainer:
    """TRL's trainer on `pairs`, with the same model."""
    return RewardTrainer(
        model=make_classifier(),
        args=make_config(folder, **changes),
        train_dataset=Dataset.from_list(pairs),
        processing_class=make_tokenizer(),
    )


def loss_and_gradients(trainer: RewardTrainer, rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Collate `rows` into one batch; its loss, and the gradients of all weights as one vector."""
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    return loss.detach(), gradients(trainer.model)


def gradients(model: Any) -> torch.Tensor:
    """All gradients as one vector."""
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
