"""Train a reward model, one scalar per completion, from rankings.

In: rankings (pairs are K = 2) and a checkpoint to start from, this run's `sft` unless `model` names another. Out: an
artifact `reward`. Rankings are split by prompt first and expanded to pairs then, so no prompt is on both sides.
Left out: all pairs of a group in one batch element, margins, ensembles, normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.config import Setting, read_settings, take
from rlhf_pipeline.data.pairs import dropped
from rlhf_pipeline.data.sources import Rows, read
from rlhf_pipeline.jobs import Job, StageSettings, asks_for_help, hub_revision, need_data
from rlhf_pipeline.records import Ranking

if TYPE_CHECKING:
    from trl import RewardTrainer

LORA_TASK = {"lora_task_type": Setting("lora_task_type", "SEQ_CLS", "default")}
SHOWN = ("loss", "eval_loss", "accuracy", "eval_accuracy", "margin", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class RewardSettings(StageSettings):
    """Our own settings of reward modelling; trl.RewardConfig's and trl.ModelConfig's stand beside them."""

    model: str = field(
        default="sft", metadata={"help": "artifact, folder or hub id to start from; default: this run's `sft`"}
    )
    data: str = field(default="", metadata={"help": "rankings: a file, a folder of `datasets`, or a hub id"})
    data_format: str = field(default="auto", metadata={"help": "format of the data; auto finds out"})
    eval_fraction: float = field(default=0.1, metadata={"help": "share of the prompts held out to evaluate on"})


def main(argv: list[str]) -> int:
    """Run `rlhf reward`; returns the exit status."""
    if asks_for_help(argv, "reward", __doc__, "trl.RewardConfig", RewardSettings):
        return 0
    asked = read_settings(argv)
    settings = take(RewardSettings, asked)
    need_data(settings.data, "reward", "rankings")
    store = Store(settings.artifacts)
    rows = read(settings.data, Ranking, on_bad_row=settings.on_bad_row, data_format=settings.data_format)
    start = find_checkpoint(store, settings.model, settings.run, hub_revision(asked))
    job = Job("reward", store, settings, asked, {"start": start.parent}, {"rankings": rows.fingerprint})
    if not job.answered("reward"):
        run(job, settings, asked, rows, start)
    return 0


def run(
    job: Job, settings: RewardSettings, asked: Mapping[str, Setting], rows: Rows[Ranking], start: Checkpoint
) -> None:
    """Train on the pairs of `rows` from `start`, and publish; nothing is written before every input is checked."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer, get_peft_config

    from rlhf_pipeline.arguments import trainer_arguments
    from rlhf_pipeline.models import check_classifier, load_classifier, load_config, load_tokenizer, loading_options
    from rlhf_pipeline.prepared import prepare, ranking_encoder, report, room
    from rlhf_pipeline.tokenization import make_fit, match_embeddings
    from rlhf_pipeline.training import refuse_adapter, train_and_publish

    arguments, model_config = trainer_arguments(
        RewardConfig, {**LORA_TASK, **asked}, RewardSettings, job.checkpoints, {}
    )
    refuse_adapter(start, "a reward model")
    config = load_config(start, arguments.trust_remote_code)
    check_classifier(config, start.location)
    tokenizer = load_tokenizer(start, arguments.trust_remote_code)
    make_fit(
        tokenizer,
        eos_token=arguments.eos_token,
        chat_template=arguments.chat_template_path,
        may_grow=not model_config.use_peft,
    )
    arguments.eos_token = arguments.chat_template_path = None

    arguments.max_length = room(config, arguments.max_length)
    encode = ranking_encoder(tokenizer, arguments.max_length, settings.on_long_row)
    prepared = prepare(rows, encode, eval_fraction=settings.eval_fraction, seed=arguments.seed)

    set_seed(arguments.seed)
    model = load_classifier(job.store, start, **loading_options(model_config, arguments.trust_remote_code))
    match_embeddings(model, tokenizer)

    with job.working():
        start = start.kept_in(job.store)
        trainer = RewardTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(prepared.train),
            eval_dataset=Dataset.from_list(prepared.held_out) if prepared.held_out else None,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_config),
        )
        counts = report(job, rows, prepared, dropped(rows.records))
        train_and_publish(
            trainer,
            job,
            model_config,
            start,
            shown=SHOWN,
            counts=counts,
            measure=lambda: pair_accuracy(trainer, prepared.held_out),
        )


def pair_accuracy(trainer: RewardTrainer, held_out: Sequence[Mapping[str, list[int]]]) -> dict[str, float]:
    """Count the held-out pairs ordered as ranked: accuracy and its 95 % Wilson interval.

    The trainer's own accuracy is a mean over batches, in which a short last batch weighs as much as a full one.
    Left out under DeepSpeed, where no process holds all weights.
    """
    from rlhf_pipeline.evaluate.statistics import wilson
    from rlhf_pipeline.scoring import RewardModel

    if trainer.is_deepspeed_enabled:
        return {}
    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model).eval(), cast(Any, trainer.processing_class)
    reward = RewardModel(model, tokenizer, "reward", trainer.args.per_device_eval_batch_size)
    chosen, rejected = (reward.score_ids([pair[side] for pair in held_out]) for side in ("chosen_ids", "rejected_ids"))
    found = wilson(float((chosen > rejected).sum()), len(held_out))
    return (
        {}
        if found is None
        else {"eval_accuracy": found.mean, "eval_accuracy_low": found.low, "eval_accuracy_high": found.high}
    )
