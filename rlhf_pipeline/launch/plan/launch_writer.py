"""Write the launch file of a choice: accelerate's YAML, and DeepSpeed's JSON beside it for ZeRO.

They are what `accelerate launch --config_file` and `LAUNCH=` of the Makefile take. Left out: host names; a file for
several machines holds a placeholder address, which `accelerate launch` takes on the command line too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_pipeline.errors import LaunchError, first_line
from rlhf_pipeline.launch.plan.choices import Choice
from rlhf_pipeline.launch.plan.gpus import GIB
from rlhf_pipeline.launch.plan.settings import PlanSettings


def write_launch_files(choice: Choice, settings: PlanSettings, file: str) -> list[Path]:
    """Write `file`, and the JSON that it names; raises LaunchError where one is there already, or cannot be."""
    path = Path(file)
    if path.suffix not in (".yaml", ".yml"):
        name = path.with_suffix(".yaml") if path.name else path / "launch.yaml"
        raise LaunchError(f"--write: {file} is no name for a launch file; call it {name}")
    texts = {path: launch_text(choice, settings, path)}
    if choice.sharding.zero:
        texts[path.with_suffix(".json")] = json.dumps(deepspeed_config(choice), indent=2) + "\n"
    try:
        _write(texts)
    except OSError as error:
        problem = f"{file} cannot be written ({first_line(error)})"
        raise LaunchError(f"--write: {problem}; name a file in a folder of yours: --write {path.name}") from error
    return list(texts)


def _write(texts: Mapping[Path, str]) -> None:
    for place in texts:
        if place.exists():
            raise LaunchError(f"--write: {place} is there already; name another file, or remove it")
    for place, text in texts.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


def launch_text(choice: Choice, settings: PlanSettings, path: Path) -> str:
    """Return accelerate's file: DDP, one process, or DeepSpeed with the JSON beside `path`."""
    zero, processes = choice.sharding.zero, choice.sharding.processes
    kind = "DEEPSPEED" if zero else "MULTI_GPU" if processes > 1 else '"NO"'
    command = f"accelerate launch --config_file {path} recipes/{settings.stage}.py"
    lines = [
        f"# {choice.name} on {processes} GPUs of {settings.total_gib:g} GiB: {choice.bytes / GIB:.1f} GiB a GPU.",
        f"# {command} --config recipes/<name>/{settings.stage}.yaml",
        "compute_environment: LOCAL_MACHINE",
        f"distributed_type: {kind}",
        "use_cpu: false",
        f"num_processes: {processes}",
        f"num_machines: {settings.nodes}",
    ]
    if settings.nodes > 1:
        lines += ["machine_rank: 0  # another on every machine", "main_process_ip: 127.0.0.1  # the first machine's"]
        lines += ["main_process_port: 29500"]
    elif processes > 1:
        lines += ["main_process_port: 0  # any free port, so that several jobs fit on one machine"]
    if zero:
        lines += ["deepspeed_config:", f"  deepspeed_config_file: {path.with_suffix('.json')}"]
        lines += [f"  zero3_init_flag: {'true' if zero == 3 else 'false'}"]
        if settings.nodes > 1:
            lines += ["  deepspeed_multinode_launcher: standard"]
    else:
        lines += ['mixed_precision: "no"  # the stage decides: bf16 on GPUs unless `bf16: false`']
    return "\n".join(lines) + "\n"


def deepspeed_config(choice: Choice) -> dict[str, Any]:
    """Return DeepSpeed's settings; `auto` is filled in by transformers from the stage's own.

    With an optimizer on the host accelerate builds DeepSpeed's own Adam, which is compiled first, unless told not to.
    """
    sharding = choice.sharding
    zero: dict[str, Any] = {
        "stage": sharding.zero,
        "overlap_comm": sharding.overlap,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
    }
    if sharding.zero == 3:
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    host = {"device": "cpu", "pin_memory": True}
    if sharding.offload != "none":
        zero["offload_optimizer"] = host
    if sharding.offload == "all":
        zero["offload_param"] = host
    return {
        "bf16": {"enabled": "auto"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        **({"zero_force_ds_cpu_optimizer": False} if sharding.offload != "none" else {}),
    }
