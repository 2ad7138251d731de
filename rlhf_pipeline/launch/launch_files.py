"""Check an accelerate launch file before using it: `rlhf check-launch recipes/accelerate/cpu2.yaml`.

accelerate answers a half-filled file with a traceback, or starts fewer processes than it says. Here every such file is
one line that names the key. Left out: everything that accelerate itself accepts or refuses clearly.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_pipeline.config import Setting, flat_yaml
from rlhf_pipeline.errors import ConfigError, LaunchError

SEVERAL = ("MULTI_GPU", "MULTI_NPU", "MULTI_MLU", "MULTI_XPU", "MULTI_HPU", "DEEPSPEED", "FSDP")
ONE = ("NO", "MULTI_CPU")


def main(argv: Sequence[str]) -> int:
    """Check one launch file: `rlhf check-launch FILE [number of processes]`."""
    if not 1 <= len(argv) <= 2 or argv[0].startswith("-"):
        print("usage: rlhf check-launch FILE [number of processes]\n\nCheck an accelerate launch file before using it.")
        return 0 if list(argv) in (["-h"], ["--help"]) else 2
    if len(argv) == 2 and not argv[1].isdigit():
        raise LaunchError(f"`{argv[1]}` is not a number of processes")
    check_launch_file(argv[0], int(argv[1]) if len(argv) == 2 else None)
    return 0


def check_launch_file(file: str, processes: int | None = None) -> None:
    """Raise LaunchError where `accelerate launch --config_file file [--num_processes processes]` could not work."""
    try:
        keys = flat_yaml(file)
    except ConfigError as error:
        raise LaunchError(str(error).replace("--config: no file", "no launch file", 1)) from None
    _check_names(keys)
    kind = _kind(file, keys)
    asked = keys.get("num_processes", Setting("num_processes", None, file))
    count = processes or asked.value
    if not isinstance(count, int) or count < 1:
        if kind == "NO" and count is None:
            return
        raise LaunchError(f"{asked.where}: num_processes is {count!r}; write a number, or type NPROC=<number>")
    if "mpirun_config" not in keys:  # with it, mpirun starts the processes
        _check_count(keys["distributed_type"], kind, count)
    _check_machines(file, keys)
    if kind == "DEEPSPEED":
        _check_deepspeed(file, keys)


def _check_names(keys: Mapping[str, Setting]) -> None:
    from accelerate.commands.config.config_args import ClusterConfig  # imports torch

    known = sorted(ClusterConfig.__dataclass_fields__)
    for name, setting in keys.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "remove it"
            raise LaunchError(f"{setting.where}: accelerate has no `{name}`; {hint}")


def _kind(file: str, keys: Mapping[str, Setting]) -> str:
    setting = keys.get("distributed_type")
    if setting is None:
        raise LaunchError(f"{file}: no distributed_type; copy one of recipes/accelerate/*.yaml")
    kind = "NO" if setting.value is False else str(setting.value)  # YAML reads a bare NO as false
    if kind not in (*SEVERAL, *ONE):
        raise LaunchError(f"{setting.where}: distributed_type {kind!r} is none of {', '.join((*ONE, *SEVERAL))}")
    if setting.value is False:
        raise LaunchError(f'{setting.where}: YAML reads NO as false; write distributed_type: "NO"')
    return kind


def _check_count(setting: Setting, kind: str, count: int) -> None:
    if kind in ONE and count > 1:
        raise LaunchError(
            f"{setting.where}: accelerate starts one process for distributed_type {kind}, not {count}; "
            "use recipes/accelerate/cpu2.yaml or nvlink.yaml"
        )
    if kind == "MULTI_GPU" and count < 2:
        raise LaunchError(f"{setting.where}: MULTI_GPU needs at least 2 processes; use recipes/accelerate/gpu1.yaml")


def _check_machines(file: str, keys: Mapping[str, Setting]) -> None:
    machines = keys.get("num_machines")
    if machines is not None and isinstance(machines.value, int) and machines.value > 1:
        for name in ("main_process_ip", "main_process_port"):
            if name not in keys:
                raise LaunchError(f"{machines.where}: {machines.value} machines need {name}; add it to {file}")


def _check_deepspeed(file: str, keys: Mapping[str, Setting]) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise LaunchError(f"{file}: asks for DeepSpeed, which is not installed; type `pip install deepspeed`")
    section = keys.get("deepspeed_config")
    content: Any = section.value if section is not None else None
    if not isinstance(content, dict) or not {"deepspeed_config_file", "zero_stage"} & set(content):
        where = section.where if section is not None else file
        raise LaunchError(f"{where}: DEEPSPEED needs deepspeed_config_file or zero_stage under `deepspeed_config:`")
    named = content.get("deepspeed_config_file")
    if named is not None and not Path(str(named)).is_file():
        raise LaunchError(f"{section.where if section else file}: deepspeed_config_file: no file {named}")
