"""Train a causal language model on raw text, from scratch or from a checkpoint.

In: documents, and either `architecture` with a `tokenizer` (from scratch) or `base` (continued). Out: an artifact
`base`. Left out: everything that makes pretraining large: streaming, mixing sources, learning-rate restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_pipeline.artifacts import Store, folder_fingerprint
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.config import Setting, read_settings, take
from rlhf_pipeline.data.sources import Rows, read
from rlhf_pipeline.errors import ConfigError, first_line
from rlhf_pipeline.jobs import Job, StageSettings, asks_for_help, hub_revision, need_data
from rlhf_pipeline.records import Document

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

PACKED = {"packing": True, "packing_strategy": "wrapped"}
SHOWN = ("loss", "eval_loss", "mean_token_accuracy", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class PretrainSettings(StageSettings):
    """Our own settings of pretraining; trl.SFTConfig's and trl.ModelConfig's stand beside them."""

    data: str = field(default="", metadata={"help": "documents: .txt, .jsonl with `text`, a folder, or a hub id"})
    data_format: str = field(default="auto", metadata={"help": "format of the data; auto finds out"})
    base: str | None = field(default=None, metadata={"help": "checkpoint to continue; not with `architecture`"})
    architecture: dict[str, Any] | None = field(
        default=None, metadata={"help": "a config.json as a mapping with `model_type`: trains from scratch"}
    )
    tokenizer: str | None = field(default=None, metadata={"help": "folder of the tokenizer, with `architecture`"})


def main(argv: list[str]) -> int:
    """Run `rlhf pretrain`; returns the exit status."""
    if asks_for_help(argv, "pretrain", __doc__, "trl.SFTConfig", PretrainSettings):
        return 0
    asked = read_settings(argv)
    settings = take(PretrainSettings, asked)
    need_data(settings.data, "pretrain", "documents")
    check_start(settings)
    store = Store(settings.artifacts)
    rows = read(settings.data, Document, on_bad_row=settings.on_bad_row, data_format=settings.data_format)
    data = {"documents": rows.fingerprint}
    start = None
    if settings.base is not None:
        start = find_checkpoint(store, settings.base, settings.run, hub_revision(asked))
    else:
        data["tokenizer"] = folder_fingerprint(Path(str(settings.tokenizer)))
    job = Job("pretrain", store, settings, asked, {} if start is None else {"start": start.parent}, data)
    if not job.answered("base"):
        run(job, settings, asked, rows, start)
    return 0


def check_start(settings: PretrainSettings) -> None:
    """Raise `ConfigError` unless exactly one of `base`, and `architecture` with `tokenizer`, is given."""
    if settings.base is None and (settings.architecture is None or settings.tokenizer is None):
        raise ConfigError(
            "pretrain: give `base` to continue a checkpoint, or `architecture` and `tokenizer` to start one"
        )
    if settings.base is not None and (settings.architecture is not None or settings.tokenizer is not None):
        raise ConfigError("pretrain: `base` brings its own architecture and tokenizer; remove one of the two")
    if settings.tokenizer is not None and not Path(settings.tokenizer).is_dir():
        raise ConfigError(f"tokenizer: no folder {settings.tokenizer}; save one there with `tokenizer.save_pretrained`")


def run(
    job: Job, settings: PretrainSettings, asked: Mapping[str, Setting], rows: Rows[Document], start: Checkpoint | None
) -> None:
    """Train on `rows`, and publish; nothing is written before every input has been checked."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, set_seed
    from trl import SFTConfig, SFTTrainer

    from rlhf_pipeline.arguments import trainer_arguments
    from rlhf_pipeline.models import check_causal, load_causal, load_config, loading_options
    from rlhf_pipeline.prepared import document_encoder, prepare, report, room
    from rlhf_pipeline.tokenization import match_embeddings
    from rlhf_pipeline.training import stage_tokenizer, train_and_publish

    arguments, model_config = trainer_arguments(SFTConfig, asked, PretrainSettings, job.checkpoints, PACKED)
    tokenizer = stage_tokenizer(start or Checkpoint("", str(settings.tokenizer)), arguments)
    if start is None:
        config = new_config(settings.architecture or {}, tokenizer)
    else:
        config = load_config(start, arguments.trust_remote_code)
        check_causal(config, start.location)
    arguments.max_length = room(config, arguments.max_length)
    prepared = prepare(rows, document_encoder(tokenizer), eval_fraction=settings.eval_fraction, seed=arguments.seed)

    set_seed(arguments.seed)
    if start is None:
        model = AutoModelForCausalLM.from_config(config)
    else:
        model = load_causal(job.store, start, **loading_options(model_config, arguments.trust_remote_code))
    match_embeddings(model, tokenizer)

    with job.working():
        start = start and start.kept_in(job.store)
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(prepared.train),
            eval_dataset=Dataset.from_list(prepared.held_out) if prepared.held_out else None,
            processing_class=tokenizer,
        )
        counts = report(job, rows, prepared)
        train_and_publish(
            trainer, job, model_config, start or Checkpoint("", ""), role="base", shown=SHOWN, counts=counts
        )


def new_config(architecture: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Build a model's configuration around a tokenizer; raises `ConfigError` where transformers refuses it."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos", "bos")}
    try:
        config: PretrainedConfig = AutoConfig.for_model(**{"vocab_size": len(tokenizer), **special, **architecture})
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise ConfigError(
            f"architecture: {first_line(error)}; give `model_type` and the fields of its config"
        ) from error
    return config
