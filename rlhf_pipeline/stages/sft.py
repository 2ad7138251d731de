"""Fine-tune a base checkpoint on demonstrations.

In: a base (hub id, folder or artifact) and demonstrations. Out: an artifact `sft`. The loss is on completions only.
Left out: learning from every assistant turn of a dialogue; the last one is the completion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.config import Setting, read_settings, take
from rlhf_pipeline.data.sources import Rows, read
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.jobs import Job, StageSettings, asks_for_help, hub_revision, need_data
from rlhf_pipeline.records import Demonstration

SHOWN = ("loss", "eval_loss", "mean_token_accuracy", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class SFTSettings(StageSettings):
    """Our own settings of SFT; trl.SFTConfig's and trl.ModelConfig's stand beside them under their own names."""

    base: str = field(
        default="base", metadata={"help": "hub id, folder or artifact to start from; default: this run's `base`"}
    )
    data: str = field(default="", metadata={"help": "demonstrations: a file, a folder of `datasets`, or a hub id"})
    data_format: str = field(default="auto", metadata={"help": "format of the data; auto finds out"})


def main(argv: list[str]) -> int:
    """Run `rlhf sft`; returns the exit status."""
    if asks_for_help(argv, "sft", __doc__, "trl.SFTConfig", SFTSettings):
        return 0
    asked = read_settings(argv)
    settings = take(SFTSettings, asked)
    need_data(settings.data, "sft", "demonstrations")
    store = Store(settings.artifacts)
    rows = read(settings.data, Demonstration, on_bad_row=settings.on_bad_row, data_format=settings.data_format)
    base = find_checkpoint(store, settings.base, settings.run, hub_revision(asked))
    refuse_other_base(store, settings.run, base)
    job = Job("sft", store, settings, asked, {"base": base.parent}, {"demonstrations": rows.fingerprint})
    if not job.answered("sft", also_refs={"base": base.parent}):
        run(job, settings, asked, rows, base)
    return 0


def run(
    job: Job, settings: SFTSettings, asked: Mapping[str, Setting], rows: Rows[Demonstration], base: Checkpoint
) -> None:
    """Train on `rows` from `base`, and publish; nothing is written before every input has been checked."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer, get_peft_config

    from rlhf_pipeline.arguments import trainer_arguments
    from rlhf_pipeline.models import check_causal, load_causal, load_config, loading_options
    from rlhf_pipeline.prepared import demonstration_encoder, prepare, report, room
    from rlhf_pipeline.tokenization import match_embeddings
    from rlhf_pipeline.training import refuse_adapter, stage_tokenizer, train_and_publish

    arguments, model_config = trainer_arguments(SFTConfig, asked, SFTSettings, job.checkpoints, {})
    refuse_adapter(base, "SFT")
    config = load_config(base, arguments.trust_remote_code)
    check_causal(config, base.location)
    tokenizer = stage_tokenizer(base, arguments, may_grow=not model_config.use_peft)
    arguments.max_length = room(config, arguments.max_length)
    encode = demonstration_encoder(
        tokenizer,
        arguments.max_length,
        settings.on_long_row,
        completion_only=arguments.completion_only_loss is not False,
    )
    prepared = prepare(rows, encode, eval_fraction=settings.eval_fraction, seed=arguments.seed)

    set_seed(arguments.seed)
    model = load_causal(job.store, base, **loading_options(model_config, arguments.trust_remote_code))
    match_embeddings(model, tokenizer)

    with job.working():
        start = base.kept_in(job.store)
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(prepared.train),
            eval_dataset=Dataset.from_list(prepared.held_out) if prepared.held_out else None,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_config),
        )
        train_and_publish(
            trainer,
            job,
            model_config,
            start,
            shown=SHOWN,
            counts=report(job, rows, prepared),
            also_refs={"base": start.parent},
        )


def refuse_other_base(store: Store, run: str, base: Checkpoint) -> None:
    """Raise `ConfigError` where the run started from another base: its later stages stand on that one."""
    sft = store.ref(run, "sft")
    before = store.ref(run, "base") or (store.manifest(sft).parents["base"] if sft else base.parent)
    if before != base.parent:
        raise ConfigError(
            f"base: run `{run}` stands on {before}, and this is {base.parent}; "
            "give the new base a run of its own (RUN=<name>, or --run <name>)"
        )
