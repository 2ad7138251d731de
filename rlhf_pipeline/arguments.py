"""Turn flat settings into TRL's trainer configuration and ModelConfig, strictly, with defaults fit for the machine.

Our defaults stand below what a user gives and above TRL's own: bf16 and gradient checkpointing on a GPU and not on a
CPU, no tracker unless `report_to` names one, two checkpoints kept. Output folders and resuming belong to the job.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments
from transformers.utils.logging import disable_progress_bar
from trl import ModelConfig

from rlhf_pipeline.config import Setting, refuse_unknown, take
from rlhf_pipeline.errors import ConfigError, LaunchError
from rlhf_pipeline.launch.build_tools import build_problem
from rlhf_pipeline.launch.deepspeed_file import check_deepspeed, contradictions, from_environment, read_deepspeed
from rlhf_pipeline.launch.processes import require_world, under_deepspeed, world_size
from rlhf_pipeline.machine import bf16_problem, keep_freed_memory

Arguments = TypeVar("Arguments", bound=TrainingArguments)

DECIDED_HERE: dict[str, str] = {
    "output_dir": "the artifact store decides where a run writes; `--artifacts` moves it",
    "model_name_or_path": "name the starting checkpoint with `--base` (sft) or `--model`",
    "resume_from_checkpoint": "a stage resumes by itself when the same command is typed again",
    "load_best_model_at_end": "a stage publishes the weights at its last step; set `num_train_epochs` to the best one",
    "dataset_text_field": "rows are read into records first; see the data formats in the README",
    "dataset_kwargs": "rows are encoded before TRL sees them, so that every stage sees the same ids",
    "model_init_kwargs": "use `dtype`, `attn_implementation` and the 4/8-bit settings",
}
"""Settings of TRL's that this pipeline decides, each with what to do instead."""


def trainer_arguments(
    cls: type[Arguments], settings: Mapping[str, Setting], own: type, output_dir: Path, defaults: Mapping[str, Any]
) -> tuple[Arguments, ModelConfig]:
    """Build a trainer configuration and ModelConfig from what `own` (the stage's dataclass) leaves over.

    Raises `ConfigError` naming the place of a setting that is unknown, of the wrong type, decided elsewhere or beyond
    the machine, and `LaunchError` where the trainer sees fewer processes than were started or DeepSpeed other settings.
    """
    quiet_libraries()
    if not torch.cuda.is_available():
        keep_freed_memory()
    refuse_decided(settings)
    refuse_unknown(settings, own, cls, ModelConfig)
    with_defaults = {
        name: Setting(name, value, "default")
        for name, value in {**machine_defaults(), "output_dir": str(output_dir), **defaults}.items()
    }
    by_deepspeed = under_deepspeed(os.environ) or "deepspeed" in settings
    if by_deepspeed and not torch.cuda.is_available() and (problem := build_problem(os.environ)):
        raise LaunchError(f"DeepSpeed on a CPU compiles an operation: {problem}")
    with warnings.catch_warnings():
        # transformers renames it in v6, TRL still has it under the old name: remove once TRL does not
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
        arguments = take(cls, {**with_defaults, **settings})
    require_world(arguments.world_size, os.environ)
    obey_timeout(arguments)
    if arguments.n_gpu > 1:  # transformers would wrap the model in nn.DataParallel and multiply the batch
        raise LaunchError(
            f"one process sees {arguments.n_gpu} GPUs; start one process on each with `accelerate launch --config_file "
            "recipes/accelerate/nvlink.yaml`, or show it one with CUDA_VISIBLE_DEVICES=0"
        )
    if arguments.bf16 and (problem := bf16_problem()):
        raise ConfigError(f"{settings['bf16'].where}: `bf16`: {problem}; leave it out, or give fp16: true")
    if by_deepspeed:
        refuse_other_deepspeed(arguments)
    return arguments, take(ModelConfig, settings)


def refuse_other_deepspeed(arguments: TrainingArguments) -> None:
    """Raise `LaunchError` where DeepSpeed's settings could not work, or are not those of the stage."""
    if isinstance(arguments.deepspeed, dict):
        config, where = arguments.deepspeed, "deepspeed"
    elif arguments.deepspeed:
        config, where = read_deepspeed(arguments.deepspeed, "deepspeed"), arguments.deepspeed
    else:
        config, where = from_environment(os.environ)
    check_deepspeed(config, where, arguments.world_size)
    micro, steps = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    ours = {**vars(arguments), "train_batch_size": micro * steps * arguments.world_size}
    for problem in contradictions(config, ours):
        raise LaunchError(f"{where}: {problem}")


def obey_timeout(arguments: TrainingArguments) -> None:
    """Let collective calls fail after `ddp_timeout` seconds on CPUs too, where transformers does not pass it on."""
    if arguments.use_cpu and arguments.world_size > 1:
        torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=arguments.ddp_timeout))


def refuse_decided(settings: Mapping[str, Setting]) -> None:
    """Raise `ConfigError` for a setting that this pipeline decides, with what to do instead."""
    for name, instead in DECIDED_HERE.items():
        if name in settings:
            raise ConfigError(f"{settings[name].where}: `{name}` cannot be set: {instead}")


def quiet_libraries() -> None:
    """Silence bars and warnings of libraries that say nothing to the user of a stage; errors still show."""
    disable_progress_bar()
    # transformers renamed it, peft 0.21 still asks under the old name: remove once peft does not
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing", category=FutureWarning)


def machine_defaults() -> dict[str, Any]:
    """Defaults that follow from the machine, and those that every stage shares."""
    gpu = torch.cuda.is_available()
    defaults: dict[str, Any] = {
        "bf16": gpu and torch.cuda.is_bf16_supported(including_emulation=False),
        "gradient_checkpointing": gpu,
        "use_cpu": not gpu and not under_deepspeed(os.environ),
        "report_to": "none",
        "save_total_limit": 2,
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # a NaN must show, or nothing can stop on it
        "dataloader_pin_memory": gpu,
        "ddp_find_unused_parameters": False,
    }
    return {**defaults, "ddp_backend": "gloo"} if not gpu and world_size(os.environ) > 1 else defaults


def resolved(arguments: TrainingArguments, model_config: ModelConfig) -> dict[str, Any]:
    """The whole configuration as plain values for a manifest, without what is true on one machine only."""
    everything = {**model_config.__dict__, **arguments.to_dict()}
    return {name: value for name, value in sorted(everything.items()) if name not in ON_ONE_MACHINE}


ON_ONE_MACHINE = {
    "output_dir", "logging_dir", "run_name", "local_rank", "hub_token", "push_to_hub_token", "deepspeed",
    "accelerator_config", "model_name_or_path", "use_cpu", "project", "trackio_space_id",
}  # fmt: skip
