"""Launch files for processes on the CPU, made of those that we ship: fewer processes, nothing that needs a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "recipes/accelerate"
ZERO = ("zero1", "zero2", "zero3")
TINY_BUCKET = 4096


def launch_file(mode: str, folder: Path, processes: int = 2) -> Path:
    """Write the launch file of `mode`, a name in recipes/accelerate, for `processes` on the CPU into `folder`.

    Buckets are small, and no parameter is too small to be shared out, or a tiny model would be left whole.
    """
    content = yaml.safe_load((SHIPPED / f"{'cpu2' if mode == 'ddp' else mode}.yaml").read_text())
    content["num_processes"] = processes
    if mode != "ddp":
        file = folder / f"{mode}.json"
        file.write_text(json.dumps(on_cpu(ROOT / content["deepspeed_config"]["deepspeed_config_file"])))
        content["deepspeed_config"]["deepspeed_config_file"] = str(file)
    launch = folder / f"{mode}-{processes}.yaml"
    launch.write_text(yaml.safe_dump(content))
    return launch


def on_cpu(file: Path) -> dict[str, Any]:
    """A DeepSpeed configuration with buckets of a tiny model, and without pinned memory."""
    config: dict[str, Any] = json.loads(file.read_text())
    zero = config["zero_optimization"]
    zero["reduce_bucket_size"] = TINY_BUCKET
    if zero["stage"] == 3:
        zero |= {"stage3_prefetch_bucket_size": TINY_BUCKET, "stage3_param_persistence_threshold": 0}
    for place in ("offload_optimizer", "offload_param"):
        if place in zero:
            zero[place]["pin_memory"] = False
    return config
