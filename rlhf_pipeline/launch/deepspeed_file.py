"""Check DeepSpeed's settings before anything is started: the JSON file, or what the launch file says in its place.

DeepSpeed and transformers find most of this out after the models are loaded, in a traceback, or when the trained model
is saved; some of it they never say. Left out: everything that DeepSpeed itself refuses at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_pipeline.errors import LaunchError

Section = Mapping[str, Any]

FOLLOWS = {
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "train_batch_size": "train_batch_size",
    "gradient_clipping": "max_grad_norm",
    "bf16.enabled": "bf16",
    "fp16.enabled": "fp16",
}
"""Settings of DeepSpeed's that repeat one of the stage: "auto" fills them in, another value is a contradiction."""

MADE_BY_THE_STAGE = {
    "optimizer": "learning_rate, optim, weight_decay; PPO's has a second rate for the critic",
    "scheduler": "lr_scheduler_type, warmup_steps; PPO rests the policy at first",
}
INSTALL_DEEPSPEED = "in the repository type `.venv/bin/pip install -c constraints.txt -e '.[deepspeed]'`"
_OFFLOADED = ("offload_optimizer", "offload_param")
_OFFLOAD_DEVICES = ("none", "cpu", "nvme")
_SECTIONS = {"zero_optimization": '{"stage": 2}', "fp16": '{"enabled": "auto"}', "bf16": '{"enabled": "auto"}'}
"""Parts of the JSON that are objects, with one that could stand there."""


def read_deepspeed(file: str, where: str = "") -> dict[str, Any]:
    """Read DeepSpeed's JSON; raises LaunchError, opening with `where` the file was named, if it cannot be read."""
    said = where or "deepspeed_config_file"
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise LaunchError(f"{said}: no file {file}; paths are read from where the command is typed") from None
    except json.JSONDecodeError as error:
        raise LaunchError(f"{file}:{error.lineno}: not JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise LaunchError(f"{file}: not UTF-8 text") from None
    if not isinstance(config, dict):
        raise LaunchError(f"{file}: expected a JSON object of DeepSpeed's settings")
    return config


def check_deepspeed(config: Section, where: str, processes: int | None = None) -> None:
    """Raise LaunchError for the first setting that could not work; `where` is the file it stands in."""
    for problem in deepspeed_problems(config, processes):
        raise LaunchError(f"{where}: {problem}")


def deepspeed_problems(config: Section, processes: int | None = None) -> Iterator[str]:
    """Yield what could not work, each with the remedy; `processes` is the number of ranks, where it is known."""
    for name, example in _SECTIONS.items():
        yield from _no_section(config, name, example)
    for name, settings in MADE_BY_THE_STAGE.items():
        if name in config:
            yield f"`{name}` would take the place of the stage's own ({settings}); remove it"
    if _is_on(config, "fp16") and _is_on(config, "bf16"):
        yield 'fp16 and bf16 are both enabled; keep one, or write "auto" for both'
    yield from _zero_problems(_section(config, "zero_optimization"))
    yield from _batch_problems(config, processes)


def _zero_problems(zero: Section) -> Iterator[str]:
    stage = zero.get("stage", 0)
    if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
        yield f"zero_optimization.stage is {stage!r}; it is 0, 1, 2 or 3"
    if stage == 3 and zero.get("stage3_gather_16bit_weights_on_model_save") is not True:
        yield (
            "zero_optimization.stage3_gather_16bit_weights_on_model_save is not true, so the trained model would be "
            "saved without its weights; set it to true"
        )
    for name in _OFFLOADED:
        yield from _no_section(zero, name, '{"device": "cpu"}', "zero_optimization.")
        yield from _offload_problems(f"zero_optimization.{name}", _section(zero, name), stage)


def _offload_problems(name: str, section: Section, stage: Any) -> Iterator[str]:
    device, path = section.get("device") or "none", section.get("nvme_path")
    if device not in _OFFLOAD_DEVICES:
        yield f"{name}.device is {device!r}; write one of {', '.join(_OFFLOAD_DEVICES)}"
        return
    if device != "none" and name.endswith("offload_param") and stage != 3:
        yield f"{name} works with stage 3 only, not {stage}; remove it"
    if device != "nvme":
        return
    if not path:
        yield f"{name}.device is nvme and nvme_path names no folder; add one on a fast local disk"
    elif not Path(str(path)).is_dir():
        yield f"{name}.nvme_path: no folder {path}; type `mkdir -p {path}` on every machine, or name another"
    elif not os.access(str(path), os.W_OK | os.X_OK):
        yield f"{name}.nvme_path: {path} cannot be written to; change its permissions, or name another"


def _batch_problems(config: Section, processes: int | None) -> Iterator[str]:
    total, micro, accumulation = (
        config.get(name)
        for name in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    )
    numbers = [total, micro, accumulation, processes]
    if all(isinstance(number, int) for number in numbers) and total != micro * accumulation * processes:  # type: ignore[operator]
        yield (
            f"train_batch_size {total} is not {micro} x {accumulation} x {processes} (train_micro_batch_size_per_gpu x "
            'gradient_accumulation_steps x processes); write "auto" for all three'
        )


def contradictions(config: Section, settings: Section) -> Iterator[str]:
    """Yield the settings of DeepSpeed's that are neither "auto" nor what the stage's `settings` say."""
    for name, ours in FOLLOWS.items():
        theirs: Any = config
        for part in name.split("."):
            theirs = theirs.get(part) if isinstance(theirs, Mapping) else None
        if theirs not in (None, "auto") and ours in settings and theirs != settings[ours]:
            yield f'{name} is {theirs!r} and the stage\'s {ours} is {settings[ours]!r}; write "auto"'


def from_launch_file(section: Section) -> dict[str, Any]:
    """Return what accelerate makes of a `deepspeed_config:` section that names no JSON file."""
    return {
        "zero_optimization": {
            "stage": section.get("zero_stage", 2),
            "stage3_gather_16bit_weights_on_model_save": section.get("zero3_save_16bit_model", False),
            **{name: {"device": section.get(f"{name}_device", "none")} for name in _OFFLOADED},
        }
    }


def from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return the settings that accelerate hands to its processes, and where they stand."""
    prefix = "ACCELERATE_DEEPSPEED_"
    file = environ.get(f"{prefix}CONFIG_FILE", "none")
    if file != "none":
        return read_deepspeed(file), file
    section: dict[str, Any] = {
        f"{name}_device": environ.get(f"{prefix}{name.upper()}_DEVICE", "none") for name in _OFFLOADED
    }
    stage = environ.get(f"{prefix}ZERO_STAGE", "2")
    section |= {
        "zero_stage": int(stage) if stage.isdigit() else stage,
        "zero3_save_16bit_model": environ.get(f"{prefix}ZERO3_SAVE_16BIT_MODEL", "false").lower() == "true",
    }
    return from_launch_file(section), "deepspeed_config of the launch file"


def _no_section(config: Section, name: str, example: str, prefix: str = "") -> Iterator[str]:
    if config.get(name) is not None and not isinstance(config[name], Mapping):
        yield f"{prefix}{name} is {config[name]!r}; write {example}"


def _section(config: Section, name: str) -> Section:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _is_on(config: Section, name: str) -> bool:
    return _section(config, name).get("enabled") is True
