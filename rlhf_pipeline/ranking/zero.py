"""The zero of a reward model: demonstrations score 0 on average, and heads of an ensemble have one zero.

Scores of rankings mean nothing but their differences; PPO penalises KL against the reward itself, and ensembles compare
members. Left out: the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from rlhf_pipeline.data.sources import Rows
from rlhf_pipeline.encoding import LongRow
from rlhf_pipeline.ensembles import Members
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.jobs import Job, say
from rlhf_pipeline.prepared import demonstration_encoder
from rlhf_pipeline.ranking.trainer import RankingTrainer
from rlhf_pipeline.records import Demonstration
from rlhf_pipeline.scoring import RewardModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def demonstration_rows(
    tokenizer: PreTrainedTokenizerBase, demonstrations: Rows[Demonstration] | None, room: int
) -> tuple[list[list[int]], list[LongRow]]:
    """Encode the demonstrations whose mean score becomes zero; also give those that are too long.

    Raises `DataError` where all are: no zero could be found, after all the training.
    """
    if demonstrations is None:
        return [], []
    encode = demonstration_encoder(tokenizer, room, "skip")
    encoded = [encode(record, demonstrations.where(n)) for n, record in enumerate(demonstrations.records)]
    rows = [row["input_ids"] for one in encoded if isinstance(one, list) for row in one]
    too_long = [one for one in encoded if isinstance(one, LongRow)]
    if not rows:
        raise DataError(
            f"--normalize_on: {too_long[0]}, and none of {len(too_long)} demonstrations does; pass shorter ones, or "
            "raise `--max_length`"
        )
    return rows, too_long


def report_demonstrations(
    job: Job, demonstrations: Rows[Demonstration] | None, used: Sequence[Any], too_long: Sequence[LongRow]
) -> dict[str, int]:
    """Set the demonstrations aside that say nothing of the zero, print what became of all, and return the counts."""
    if demonstrations is None:
        return {}
    job.set_aside("bad_demonstrations", [bad.to_dict() for bad in demonstrations.bad])
    job.set_aside("long_demonstrations", [asdict(row) for row in too_long])
    counts = {
        "demonstrations_used": len(used),
        "demonstrations_bad": len(demonstrations.bad),
        "demonstrations_long": len(too_long),
    }
    say("reward: " + "  ".join(f"{name} {count}" for name, count in counts.items() if count))
    return counts


def normalize(trainer: RankingTrainer, demonstrations: Sequence[list[int]]) -> dict[str, float]:
    """Set the config's `reward_offset` so that demonstrations score 0 on average (Ouyang et al. 2022, section 3.5).

    An ensemble of heads has one for each, and in the metrics their mean. Without demonstrations its heads are aligned
    on the held-out completions, and their mean stays as it is: rankings alone give each a zero of its own.
    """
    reward = as_reward_model(trainer)
    if not demonstrations and reward.members == 1:
        return {}
    held_out: Any = [] if demonstrations else trainer.eval_dataset
    rows = demonstrations or [row for group in held_out for row in group["input_ids"]]
    offsets = reward.member_scores(rows).mean(dim=0)
    if not demonstrations:
        offsets -= offsets.mean()
    config = trainer.accelerator.unwrap_model(trainer.model).config
    config.reward_offset = offsets.tolist() if reward.members > 1 else float(offsets)
    return {"reward_offset": float(offsets.mean())}


def as_reward_model(trainer: RankingTrainer) -> RewardModel:
    """Give the model in training as what scores."""
    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model).eval(), cast(Any, trainer.processing_class)
    heads = model.config.num_labels
    if heads > 1:
        model = Members([model], [0.0] * heads, [1.0] * heads)
    return RewardModel(model, tokenizer, "reward", trainer.args.per_device_eval_batch_size)
