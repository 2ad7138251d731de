"""Check an accelerate launch file before using it: `rlhf check-launch recipes/accelerate/cpu2.yaml`.

accelerate answers a half-filled file with a traceback, or starts fewer processes than it says. Here every such file is
one line that names the key. Left out: everything that accelerate itself accepts or refuses clearly, and what the
machine has; `rlhf doctor --launch FILE` compares the two.
"""

from __future__ import annotations

import difflib
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_pipeline.config import Setting, flat_yaml
from rlhf_pipeline.errors import ConfigError, LaunchError
from rlhf_pipeline.launch.deepspeed_file import INSTALL_DEEPSPEED, check_deepspeed, from_launch_file, read_deepspeed
from rlhf_pipeline.launch.ports import port_problem

SEVERAL = ("MULTI_GPU", "MULTI_NPU", "MULTI_MLU", "MULTI_XPU", "MULTI_HPU", "DEEPSPEED", "FSDP")
ONE = ("NO", "MULTI_CPU")
IN_JSON_ONLY = (
    "gradient_accumulation_steps", "gradient_clipping", "zero_stage", "offload_optimizer_device",
    "offload_param_device", "offload_optimizer_nvme_path", "offload_param_nvme_path", "zero3_save_16bit_model",
)  # fmt: skip
"""What accelerate takes from `deepspeed_config:` only where that names no JSON file."""


@dataclass(frozen=True)
class Launch:
    """What a checked launch file starts: kind is accelerate's distributed_type, deepspeed the settings of DeepSpeed."""

    file: str
    kind: str
    processes: int
    machines: int = 1
    use_cpu: bool = False
    port: int | None = None
    machine_rank: int = 0
    deepspeed: Mapping[str, Any] = field(default_factory=dict)
    deepspeed_file: str | None = None

    @property
    def per_machine(self) -> int:
        """Processes on each machine."""
        return self.processes // self.machines


def main(argv: Sequence[str]) -> int:
    """Check one launch file: `rlhf check-launch FILE [number of processes]`."""
    if not 1 <= len(argv) <= 2 or argv[0].startswith("-"):
        print("usage: rlhf check-launch FILE [number of processes]\n\nCheck an accelerate launch file before using it.")
        return 0 if list(argv) in (["-h"], ["--help"]) else 2
    if len(argv) == 2 and not (argv[1].isdecimal() and int(argv[1])):
        raise LaunchError(f"`{argv[1]}` is not a number of processes; type one from 1 on")
    check_launch_file(argv[0], int(argv[1]) if len(argv) == 2 else None)
    return 0


def check_launch_file(file: str, processes: int | None = None) -> Launch:
    """Return what the file starts; LaunchError where `accelerate launch --config_file file` could not work.

    `processes` is what `--num_processes` will say on the command line.
    """
    try:
        keys = flat_yaml(file)
    except ConfigError as error:
        raise LaunchError(str(error).replace("--config: no file", "no launch file", 1)) from None
    _check_names(keys)
    kind = _kind(file, keys)
    asked = keys.get("num_processes", Setting("num_processes", None, file))
    count = processes or asked.value
    if kind == "NO" and count is None:
        count = 1
    if not isinstance(count, int) or count < 1:
        raise LaunchError(f"{asked.where}: num_processes is {count!r}; write a number, or type NPROC=<number>")
    if "mpirun_config" not in keys:  # with it, mpirun starts the processes
        _check_count(keys["distributed_type"], kind, count)
    machines = _check_machines(file, keys, count)
    _check_gpu_ids(keys.get("gpu_ids"), count // machines)
    config, named = _check_deepspeed(file, keys, count, machines) if kind == "DEEPSPEED" else ({}, None)
    return Launch(
        file, kind, count, machines, use_cpu=_value(keys, "use_cpu") is True, port=_port(keys, machines),
        machine_rank=_value(keys, "machine_rank") or 0, deepspeed=config, deepspeed_file=named,
    )  # fmt: skip


def _value(keys: Mapping[str, Setting], name: str) -> Any:
    return keys[name].value if name in keys else None


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


def _check_machines(file: str, keys: Mapping[str, Setting], count: int) -> int:
    """Return the number of machines, once they can find each other and share the processes evenly."""
    setting = keys.get("num_machines", Setting("num_machines", 1, file))
    machines = setting.value
    if not isinstance(machines, int) or machines < 1:
        raise LaunchError(f"{setting.where}: num_machines is {machines!r}; write a number")
    if machines == 1:
        return 1
    needed = ["main_process_ip", "main_process_port"]
    if _value(keys, "rdzv_backend") in (None, "static"):
        needed.append("machine_rank")
    for name in needed:
        if name not in keys:
            also = ": 0, and another number on every other machine" if name == "machine_rank" else ""
            raise LaunchError(f"{setting.where}: {machines} machines need {name}; add it to {file}{also}")
    if count % machines:
        raise LaunchError(
            f"{setting.where}: {count} processes on {machines} machines; num_processes counts those of all machines "
            "and must be a multiple of num_machines"
        )
    rank = _value(keys, "machine_rank") or 0
    if not isinstance(rank, int) or not 0 <= rank < machines:
        raise LaunchError(f"{keys['machine_rank'].where}: machine_rank is {rank!r}; it is 0 to {machines - 1}")
    return machines


def _check_gpu_ids(setting: Setting | None, count: int) -> None:
    if setting is None or setting.value in (None, "all"):
        return
    ids = [word for word in str(setting.value).split(",") if word.strip()]
    if len(ids) < count:
        raise LaunchError(
            f"{setting.where}: gpu_ids names {len(ids)} GPUs for {count} processes; write all, or "
            f"num_processes: {len(ids)}"
        )


def _port(keys: Mapping[str, Setting], machines: int) -> int | None:
    """Return main_process_port; LaunchError where rank 0 of several machines could not take it."""
    setting = keys.get("main_process_port")
    if setting is None or setting.value is None:
        return None
    if not isinstance(setting.value, int) or not 0 <= setting.value <= 65535:
        raise LaunchError(f"{setting.where}: main_process_port is {setting.value!r}; write a number from 0 to 65535")
    if machines > 1 and not setting.value:
        raise LaunchError(f"{setting.where}: main_process_port 0 is another port on every machine; write one for all")
    first = machines > 1 and not _value(keys, "machine_rank")  # on one machine accelerate looks for another itself
    if first and (problem := port_problem(setting.value)):
        raise LaunchError(f"{setting.where}: {problem}; end the process that has it, or write another number")
    return setting.value


def _check_deepspeed(
    file: str, keys: Mapping[str, Setting], count: int, machines: int
) -> tuple[Mapping[str, Any], str | None]:
    """Return DeepSpeed's settings, once they can work, and the JSON file that holds them, if one does."""
    if importlib.util.find_spec("deepspeed") is None:
        raise LaunchError(f"{file}: asks for DeepSpeed, which is not installed; {INSTALL_DEEPSPEED}")
    section = keys.get("deepspeed_config", Setting("deepspeed_config", None, file))
    content, where = section.value, section.where
    if not isinstance(content, dict) or not {"deepspeed_config_file", "zero_stage"} & set(content):
        raise LaunchError(f"{where}: DEEPSPEED needs deepspeed_config_file or zero_stage under `deepspeed_config:`")
    launcher = content.get("deepspeed_multinode_launcher", "pdsh")
    if machines > 1 and launcher == "pdsh" and shutil.which("pdsh") is None:
        raise LaunchError(
            f"{where}: deepspeed_multinode_launcher is pdsh, which is not installed; write "
            "`deepspeed_multinode_launcher: standard` and type the command on every machine"
        )
    named = content.get("deepspeed_config_file")
    if named is None:
        config = from_launch_file(content)
        check_deepspeed(config, where, count)
        return config, None
    twice = [name for name in IN_JSON_ONLY if name in content]
    if twice:
        raise LaunchError(f"{where}: {twice[0]} stands beside deepspeed_config_file, which has it; remove it here")
    config = read_deepspeed(str(named), f"{where}: deepspeed_config_file")
    check_deepspeed(config, str(named), count)
    return config, str(named)
