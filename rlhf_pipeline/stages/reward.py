"""Train a reward model, one scalar per completion, from rankings.

In: rankings (pairs are K = 2) and a checkpoint to start from, this run's `sft` unless `model` names another. Out: an
artifact `reward`. Rankings are split by prompt, so no prompt is on both sides. A ranking of K completions is one
element of a batch, with all its pairs (Ouyang et al. 2022, section 3.5). With `normalize_on`, demonstrations score 0 on
average. An ensemble is several such models, each with a seed of its own, or several heads on one (`ensemble_size`).
Left out: members trained side by side in one command (`member` trains one).
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.ensemble import join
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.config import Setting, read_settings, take
from rlhf_pipeline.data.pairs import Ties, dropped
from rlhf_pipeline.data.sources import Rows, read
from rlhf_pipeline.data.splits import opening
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.jobs import Job, StageSettings, asks_for_help, hub_revision, is_main_process, need_data, say
from rlhf_pipeline.normalization import Normalization
from rlhf_pipeline.records import Demonstration, Ranking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_pipeline.prepared import Prepared
    from rlhf_pipeline.ranking.trainer import RankingTrainer

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
    ensemble_size: int = field(default=1, metadata={"help": "reward models, or heads, of an ensemble; 1: no ensemble"})
    ensemble: Literal["members", "heads"] = field(
        default="members", metadata={"help": "whole models (adapters with use_peft), or heads on one model"}
    )
    member: int = field(
        default=0, metadata={"help": "train this member of an ensemble alone: seed + member, on the same prompts"}
    )

    def __post_init__(self) -> None:
        """Refuse a probability that is none or makes labels say nothing, and an ensemble of nothing."""
        super().__post_init__()
        if self.ensemble_size < 1 or self.member < 0:
            raise ConfigError("`ensemble_size` must be at least 1, and `member` at least 0")
        if self.ensemble_size > 1 and self.member:
            raise ConfigError("`member` trains one model alone; leave `ensemble_size` out, or train all without it")
        if self.ensemble_size > 1 and self.eval_fraction == 0 and not self.normalize_on:
            raise ConfigError(
                "`eval_fraction` 0 leaves no completions on which members could be given one zero; raise it, or name "
                "demonstrations with `--normalize_on`"
            )
        if self.ensemble == "heads" and self.ensemble_size == 1:
            raise ConfigError("`ensemble` heads needs `ensemble_size` of at least 2")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"`label_smoothing` must be at least 0 and below 0.5, not {self.label_smoothing}")

    @property
    def heads(self) -> int:
        """How many scores the model gives."""
        return self.ensemble_size if self.ensemble == "heads" else 1


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

    def train(one: RewardSettings, ref: str) -> None:
        job = Job("reward", store, one, asked, {"start": start.parent}, data, {"reward": ref})
        if not job.answered("reward"):
            run(job, one, asked, rows, demonstrations, start)

    if settings.ensemble_size == settings.heads:
        train(settings, f"member{settings.member}" if settings.member else "reward")
        return 0
    for number in range(settings.ensemble_size):
        say(f"reward: member {number} of {settings.ensemble_size}")
        train(replace(settings, ensemble_size=1, member=number), f"member{number}")
        gc.collect()  # a trainer is full of cycles, and would keep its model and optimizer beside the next
    if is_main_process():
        publish_ensemble(store, settings.run, settings.ensemble_size)
    return 0


def publish_ensemble(store: Store, run: str, size: int) -> None:
    """Publish the ensemble of the run's first `size` members as its reward."""
    names = [store.resolve(f"member{number}", run) for number in range(size)]
    say(f"reward: the ensemble is {join(store, names, run, 'reward')}")


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
    from trl import RewardConfig, get_peft_config

    from rlhf_pipeline.arguments import trainer_arguments
    from rlhf_pipeline.models import adapter_base, check_classifier, load_config
    from rlhf_pipeline.prepared import room, with_margins
    from rlhf_pipeline.ranking.trainer import RankingTrainer
    from rlhf_pipeline.ranking.zero import demonstration_rows, normalize, report_demonstrations
    from rlhf_pipeline.training import refuse_second_adapter, stage_tokenizer, train_and_publish

    arguments, model_config = trainer_arguments(
        RewardConfig, {**LORA_TASK, **asked}, RewardSettings, job.checkpoints, {}
    )
    refuse_second_adapter(start, model_config.use_peft)
    base = adapter_base(job.store, start)
    config = load_config(base or start, arguments.trust_remote_code)
    check_classifier(config, start.location, settings.heads)
    tokenizer = stage_tokenizer(start, arguments, may_grow=not (model_config.use_peft or base))
    arguments.max_length = room(config, arguments.max_length)
    if settings.use_margins:
        rows = with_margins(rows, settings.ties, settings.on_bad_row)
    prepared, left_out = prepare_groups(rows, tokenizer, arguments.max_length, settings, arguments.seed)
    zero, too_long = demonstration_rows(tokenizer, demonstrations, arguments.max_length)

    arguments.seed += settings.member
    model = first_model(job.store, start, tokenizer, arguments, model_config, settings.heads)

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
        counts = report_groups(job, rows, prepared, left_out)
        counts |= report_demonstrations(job, demonstrations, zero, too_long)
        openings = [opening(one) for one in prepared.held_out_records]
        train_and_publish(
            trainer,
            job,
            model_config,
            start,
            shown=SHOWN,
            counts=counts,
            measure=lambda: {**accuracy_interval(trainer, openings), **normalize(trainer, zero)},
            also_save=model.config.save_pretrained,
        )


def prepare_groups(
    rows: Rows[Ranking], tokenizer: PreTrainedTokenizerBase, room: int, settings: RewardSettings, seed: int
) -> tuple[Prepared[Ranking], Counter[str]]:
    """Split and encode the rankings; also count the pairs that are not compared, by the reason."""
    from rlhf_pipeline.prepared import prepare, ranking_encoder

    same: Counter[str] = Counter()
    encode = ranking_encoder(
        tokenizer,
        room,
        settings.on_long_row,
        ties=settings.ties,
        use_margins=settings.use_margins,
        left_out=same,
    )
    prepared = prepare(rows, encode, eval_fraction=settings.eval_fraction, seed=seed)
    return prepared, dropped(rows.records, settings.ties) + same


def first_model(
    store: Store, start: Checkpoint, tokenizer: PreTrainedTokenizerBase, arguments: Any, model_config: Any, heads: int
) -> Any:
    """Load the model that training starts from: a classifier, or the base of an adapter with that adapter over it.

    Its `heads` are drawn under the seed of `arguments`.
    """
    from transformers import set_seed

    from rlhf_pipeline.models import adapter_base, classifier_on_adapter, load_classifier, loading_options
    from rlhf_pipeline.tokenization import match_embeddings

    set_seed(arguments.seed)
    load = load_classifier if adapter_base(store, start) is None else classifier_on_adapter
    model = load(store, start, heads=heads, **loading_options(model_config, arguments.trust_remote_code))
    match_embeddings(model, tokenizer)
    fresh = Normalization().to_config()  # what another training found is no longer true
    model.config.update(fresh if heads == 1 else {**fresh, "reward_heads": heads})
    return model


def report_groups(
    job: Job, rows: Rows[Ranking], prepared: Prepared[Ranking], left_out: Mapping[str, int]
) -> dict[str, int]:
    """Report the rankings and their pairs: those compared on each side, and those `left_out`."""
    from rlhf_pipeline.prepared import report

    sides = {"train": prepared.train, "held_out": prepared.held_out}
    pairs = {name: sum(len(group["better"]) for group in groups) for name, groups in sides.items()}
    return report(job, rows, prepared, pairs, left_out)


def accuracy_interval(trainer: RankingTrainer, openings: Sequence[str]) -> dict[str, float]:
    """Give the 95 % interval of the last evaluation's accuracy, over prompts: the `openings` of the held-out groups."""
    from rlhf_pipeline.evaluate.statistics import clustered_share
    from rlhf_pipeline.ranking.figures import outcomes

    if trainer.evaluated is None:
        return {}
    values, groups = outcomes(trainer.evaluated)
    found = clustered_share(values, [openings[group] for group in groups])
    return {} if found is None else {"eval_accuracy_low": found.low, "eval_accuracy_high": found.high}
