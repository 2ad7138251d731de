"""Train a reward model, one scalar per completion, from rankings.

In: rankings (pairs are K = 2) and a checkpoint to start from, this run's `sft` unless `model` names another. Out: an
artifact `reward`. Rankings are split by prompt, so no prompt is on both sides. A ranking of K completions is one
element of a batch, with all its pairs (Ouyang et al. 2022, section 3.5). With `normalize_on`, demonstrations score 0 on
average. Left out: ensembles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.config import Setting, read_settings, take
from rlhf_pipeline.data.pairs import Ties, dropped
from rlhf_pipeline.data.sources import Rows, read
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.jobs import Job, StageSettings, asks_for_help, hub_revision, need_data
from rlhf_pipeline.records import Demonstration, Ranking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_pipeline.ranking.trainer import RankingTrainer
    from rlhf_pipeline.scoring import RewardModel

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
    normalize_on: str = field(default="", metadata={"help": "demonstrations that shall score 0 on average"})
    eval_fraction: float = field(default=0.1, metadata={"help": "share of the prompts held out to evaluate on"})
    ties: Ties = field(
        default="skip", metadata={"help": "completions of equal rank: not compared, or a tie is half a win each way"}
    )
    use_margins: bool = field(
        default=False, metadata={"help": "ask a better completion to lead by the difference of the ranking's scores"}
    )
    label_smoothing: float = field(
        default=0.0, metadata={"help": "probability that a pair was ranked the wrong way round"}
    )

    def __post_init__(self) -> None:
        """Refuse a probability that is none, or that makes labels say nothing."""
        super().__post_init__()
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"`label_smoothing` must be at least 0 and below 0.5, not {self.label_smoothing}")


def main(argv: list[str]) -> int:
    """Run `rlhf reward`; returns the exit status."""
    if asks_for_help(argv, "reward", __doc__, "trl.RewardConfig", RewardSettings):
        return 0
    asked = read_settings(argv)
    refuse_factor(asked)
    settings = take(RewardSettings, asked)
    need_data(settings.data, "reward", "rankings")
    store = Store(settings.artifacts)
    rows = read(settings.data, Ranking, on_bad_row=settings.on_bad_row, data_format=settings.data_format)
    start = find_checkpoint(store, settings.model, settings.run, hub_revision(asked))
    data, demonstrations = {"rankings": rows.fingerprint}, None
    if settings.normalize_on:
        demonstrations = read(settings.normalize_on, Demonstration, on_bad_row=settings.on_bad_row)
        data["demonstrations"] = demonstrations.fingerprint
    job = Job("reward", store, settings, asked, {"start": start.parent}, data)
    if not job.answered("reward"):
        run(job, settings, asked, rows, demonstrations, start)
    return 0


def refuse_factor(asked: Mapping[str, Setting]) -> None:
    """Raise `ConfigError` for transformers' smoothing, which is one of classes: no reward trainer reads it."""
    if "label_smoothing_factor" in asked:
        raise ConfigError(
            f"{asked['label_smoothing_factor'].where}: `label_smoothing_factor` cannot be set: it has no effect on "
            "rankings; use `label_smoothing`, the probability of a wrong label"
        )


def run(
    job: Job,
    settings: RewardSettings,
    asked: Mapping[str, Setting],
    rows: Rows[Ranking],
    demonstrations: Rows[Demonstration] | None,
    start: Checkpoint,
) -> None:
    """Train on `rows` from `start`, and publish; nothing is written before every input is checked."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, get_peft_config

    from rlhf_pipeline.arguments import trainer_arguments
    from rlhf_pipeline.models import adapter_base, check_classifier, load_config
    from rlhf_pipeline.prepared import prepare, ranking_encoder, report, room
    from rlhf_pipeline.ranking.trainer import RankingTrainer
    from rlhf_pipeline.training import refuse_second_adapter, stage_tokenizer, train_and_publish

    arguments, model_config = trainer_arguments(
        RewardConfig, {**LORA_TASK, **asked}, RewardSettings, job.checkpoints, {}
    )
    refuse_second_adapter(start, model_config.use_peft)
    base = adapter_base(job.store, start)
    config = load_config(base or start, arguments.trust_remote_code)
    check_classifier(config, start.location)
    tokenizer = stage_tokenizer(start, arguments, may_grow=not (model_config.use_peft or base))
    arguments.max_length = room(config, arguments.max_length)
    encode = ranking_encoder(
        tokenizer, arguments.max_length, settings.on_long_row, ties=settings.ties, use_margins=settings.use_margins
    )
    prepared = prepare(rows, encode, eval_fraction=settings.eval_fraction, seed=arguments.seed)
    zero = demonstration_rows(tokenizer, demonstrations, arguments.max_length)

    set_seed(arguments.seed)
    model = first_model(job.store, start, tokenizer, arguments, model_config)

    with job.working():
        start = start.kept_in(job.store)
        trainer = RankingTrainer(
            label_smoothing=settings.label_smoothing,
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(prepared.train),
            eval_dataset=Dataset.from_list(prepared.held_out) if prepared.held_out else None,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_config),
        )
        pairs = {"train": count_pairs(prepared.train), "held_out": count_pairs(prepared.held_out)}
        counts = report(job, rows, prepared, pairs, dropped(rows.records, settings.ties))
        train_and_publish(
            trainer,
            job,
            model_config,
            start,
            shown=SHOWN,
            counts=counts,
            measure=lambda: {**accuracy_interval(trainer), **normalize(trainer, zero)},
            also_save=model.config.save_pretrained,
        )


def first_model(
    store: Store, start: Checkpoint, tokenizer: PreTrainedTokenizerBase, arguments: Any, model_config: Any
) -> Any:
    """Load the model that training starts from: a classifier, or the base of an adapter with that adapter over it."""
    from rlhf_pipeline.models import adapter_base, classifier_on_adapter, load_classifier, loading_options
    from rlhf_pipeline.tokenization import match_embeddings

    load = load_classifier if adapter_base(store, start) is None else classifier_on_adapter
    model = load(store, start, **loading_options(model_config, arguments.trust_remote_code))
    match_embeddings(model, tokenizer)
    model.config.update({"reward_offset": 0.0, "reward_scale": 1.0})  # what another training found is no longer true
    return model


def demonstration_rows(
    tokenizer: PreTrainedTokenizerBase, demonstrations: Rows[Demonstration] | None, room: int
) -> list[list[int]]:
    """Encode the demonstrations whose mean score becomes zero; those that do not fit are left out."""
    from rlhf_pipeline.prepared import demonstration_encoder

    if demonstrations is None:
        return []
    encode = demonstration_encoder(tokenizer, room, "skip")
    encoded = [encode(record, demonstrations.where(n)) for n, record in enumerate(demonstrations.records)]
    return [row["input_ids"] for rows in encoded if isinstance(rows, list) for row in rows]


def normalize(trainer: RankingTrainer, demonstrations: Sequence[list[int]]) -> dict[str, float]:
    """Set the config's `reward_offset` so that demonstrations score 0 on average (Ouyang et al. 2022, section 3.5)."""
    if not demonstrations:
        return {}
    offset = float(as_reward_model(trainer).score_ids(demonstrations).mean())
    trainer.accelerator.unwrap_model(trainer.model).config.reward_offset = offset
    return {"reward_offset": offset}


def count_pairs(groups: Sequence[Mapping[str, Sequence[int]]]) -> int:
    """Count the comparisons of encoded groups."""
    return sum(len(group["better"]) for group in groups)


def accuracy_interval(trainer: RankingTrainer) -> dict[str, float]:
    """Give the 95 % interval of the last evaluation's accuracy, over groups: pairs of one prompt go together."""
    from rlhf_pipeline.evaluate.statistics import clustered_mean
    from rlhf_pipeline.ranking.figures import outcomes

    if trainer.evaluated is None:
        return {}
    found = clustered_mean(*outcomes(trainer.evaluated))
    return {} if found is None else {"eval_accuracy_low": found.low, "eval_accuracy_high": found.high}


def as_reward_model(trainer: RankingTrainer) -> RewardModel:
    """Give the model in training as what scores."""
    from rlhf_pipeline.scoring import RewardModel

    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model).eval(), cast(Any, trainer.processing_class)
    return RewardModel(model, tokenizer, "reward", trainer.args.per_device_eval_batch_size)
