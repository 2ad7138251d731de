"""What every trained stage does with its trainer: train or go on, evaluate on held-out rows, save, publish.

Left out: what is trained (`stages`) and how a run is shown (`progress`).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_pt_utils import get_model_param_count
from transformers.trainer_utils import SaveStrategy

from rlhf_pipeline.arguments import resolved
from rlhf_pipeline.bases import HUB_PREFIX, Checkpoint
from rlhf_pipeline.errors import ConfigError, ModelError
from rlhf_pipeline.jobs import Job, is_main_process, say
from rlhf_pipeline.models import ADAPTER_CONFIG, adapter_base, adapter_base_name, load_tokenizer
from rlhf_pipeline.progress import train, watch
from rlhf_pipeline.sharding import zero_stage
from rlhf_pipeline.stopping import ranks_together
from rlhf_pipeline.tokenization import make_fit

NOT_PUBLISHED = ("training_args.bin", "README.md")
"""What trainers leave beside a model: a pickle, and a model card that names local paths."""


def train_and_publish(
    trainer: Trainer,
    job: Job,
    model_config: Any,
    start: Checkpoint,
    *,
    shown: Sequence[str],
    counts: Mapping[str, int],
    role: str | None = None,
    also_refs: Mapping[str, str] | None = None,
    measure: Callable[[], Mapping[str, float]] = dict,
    also_save: Callable[[Path], None] | None = None,
) -> None:
    """Train (or go on), evaluate where rows were held out, and publish the model under `role`, or the stage's name.

    `counts` tell what became of the rows, `measure` adds to the trainer's held-out metrics; both are kept in the
    manifest. `also_save` writes more into the folder. Every rank calls this.
    """
    parameters = trained_parameters(trainer)
    job.need_space(parameters, checkpoints_at_once(trainer), copies_in_checkpoint())
    watch(trainer, job, shown)
    with ranks_together(trainer, job), contextlib.ExitStack() as after:
        train(trainer, job)
        metrics = trainer.evaluate() if trainer.eval_dataset is not None else {}
        metrics.update(measure())
        say(f"{job.stage}: {summary(metrics)}")
        job.need_space(parameters, 0)
        staged = after.enter_context(job.store.staging())
        save(trainer, staged, adapter_base(job.store, start) or start)
        if is_main_process():
            if also_save is not None:
                also_save(staged)
            config = resolved(trainer.args, model_config)
            numbers = {**finite(metrics), **counts, "steps": trainer.state.global_step}
            job.publish({role or job.stage: staged}, config=config, metrics=numbers, also_refs=also_refs)


def stage_tokenizer(start: Checkpoint, arguments: Any, *, may_grow: bool = True) -> PreTrainedTokenizerBase:
    """Load the tokenizer beside a checkpoint and make it fit, with the EOS and the chat template that were asked for.

    Both are then taken out of `arguments`: TRL would apply them once more.
    """
    tokenizer = load_tokenizer(start, arguments.trust_remote_code)
    make_fit(tokenizer, eos_token=arguments.eos_token, chat_template=arguments.chat_template_path, may_grow=may_grow)
    arguments.eos_token = arguments.chat_template_path = None
    return tokenizer


def trained_parameters(trainer: Trainer) -> int:
    """Count the weights that training changes: those of the adapter only, under LoRA."""
    return int(get_model_param_count(trainer.model, trainable_only=True))


def checkpoints_at_once(trainer: Trainer) -> int:
    """Checkpoints that lie on the disk together: the ones that are kept, and the one being written."""
    if trainer.args.save_strategy == SaveStrategy.NO:
        return 0
    return (trainer.args.save_total_limit or 1) + 1


def copies_in_checkpoint() -> int:
    """Numbers a checkpoint holds for each trained weight; DeepSpeed adds the weight, and the optimizer's own copy."""
    return 5 if zero_stage() else 3


def save(trainer: Trainer, folder: Path, start: Checkpoint) -> None:
    """Save model and tokenizer as plain transformers (or peft) loads them; an adapter names its base by id."""
    trainer.save_model(str(folder))
    if is_main_process():
        for name in NOT_PUBLISHED:
            (folder / name).unlink(missing_ok=True)
        name_adapter_base(folder, start)


def name_adapter_base(folder: Path, start: Checkpoint) -> None:
    """Write the base's id, or its hub id and commit, into an adapter's configuration instead of a local path."""
    path = folder / ADAPTER_CONFIG
    if path.is_file():
        hub = start.parent.startswith(HUB_PREFIX)
        config = json.loads(path.read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": start.location if hub else start.parent, "revision": start.revision}
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def refuse_adapter(start: Checkpoint, what: str) -> None:
    """Raise `ModelError` where a stage would train on top of a LoRA adapter that has no merged model to stand on."""
    if adapter_base_name(start.location) is not None:
        raise ModelError(
            f"{start.parent} is a LoRA adapter, and {what} needs a full model; "
            f"type `rlhf artifacts merge {start.parent}` and pass the id it prints with `--model`"
        )


def refuse_second_adapter(start: Checkpoint, use_peft: bool) -> None:
    """Raise `ConfigError` where a fresh adapter is asked for on top of one: a stage goes on with that one."""
    if use_peft and adapter_base_name(start.location) is not None:
        raise ConfigError(
            f"use_peft: {start.parent} is a LoRA adapter, and the stage goes on with it; leave use_peft out, or type "
            f"`rlhf artifacts merge {start.parent}` and pass the id it prints with `--model`"
        )


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among `metrics` that a manifest can hold."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float) and math.isfinite(value)}


def summary(metrics: Mapping[str, Any]) -> str:
    """One line of held-out metrics, without the trainer's own timings."""
    timings = ("_runtime", "_per_second", "epoch", "num_tokens")
    shown = {name: value for name, value in finite(metrics).items() if not name.endswith(timings)}
    return "held out: " + ("  ".join(f"{name} {value:.4g}" for name, value in shown.items()) or "nothing")
