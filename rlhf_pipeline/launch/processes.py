"""Refuse launches that would quietly run something else than what was asked for.

`accelerate launch` starts one process, without a word, for `--cpu --num_processes 2` and for `MULTI_CPU` launch files
(accelerate 1.15), and DeepSpeed fails late and at length when half configured. Both show in the environment of the
processes, so a stage looks there before anything heavy is imported. Launch files can also be checked beforehand
(`launch_files`). Left out: starting processes; that is accelerate's, torchrun's and MPI's work.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from rlhf_pipeline.errors import LaunchError

# What torchrun and accelerate, PMI (Intel MPI, MPICH), Open MPI and MVAPICH tell a process about its siblings.
WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def check_processes(environ: Mapping[str, str]) -> None:
    """Raise LaunchError where this process was started in a way that cannot be what was meant."""
    if _alone_but_meant_as_one_of_several(environ):
        raise LaunchError(
            "accelerate was asked for several processes and started one (it does for --cpu and for MULTI_CPU); type "
            "`accelerate launch --config_file recipes/accelerate/cpu2.yaml <script>` or `torchrun --nproc_per_node 2 "
            "<script>`, or for one process leave --num_processes out and unset MASTER_ADDR"
        )
    if environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("1", "true"):
        _check_deepspeed(environ)


def _alone_but_meant_as_one_of_several(environ: Mapping[str, str]) -> bool:
    """Whether accelerate's single-process launcher ran although more than one process was asked for.

    It names a meeting point (MASTER_ADDR) only for more than one process, and siblings never appear.
    """
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in environ
    return by_accelerate and "MASTER_ADDR" in environ and not any(name in environ for name in WORLD_SIZES)


def _check_deepspeed(environ: Mapping[str, str]) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise LaunchError("the launch file asks for DeepSpeed, which is not installed; type `pip install deepspeed`")
    file = environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file != "none":
        if not Path(file).is_file():
            raise LaunchError(f"deepspeed_config_file: no file {file}; paths are read from where the command is typed")
    elif "zero_stage" not in environ.get("ACCELERATE_CONFIG_DS_FIELDS", "zero_stage"):
        raise LaunchError(
            "the launch file asks for DeepSpeed and says neither deepspeed_config_file nor zero_stage; give one of "
            "them under `deepspeed_config:`"
        )


def world_size(environ: Mapping[str, str]) -> int:
    """Return how many processes the launcher says it started, 1 without one; raises LaunchError on a non-number."""
    for name in WORLD_SIZES:
        if name in environ:
            if not environ[name].isdigit() or environ[name] == "0":
                raise LaunchError(f"{name}={environ[name]!r} is not a number of processes; unset it")
            return int(environ[name])
    return 1


def require_world(seen: int, environ: Mapping[str, str]) -> None:
    """Raise LaunchError when the trainer sees another number of processes than the launcher started."""
    started = world_size(environ)
    if seen != started:
        raise LaunchError(
            f"{started} processes were started but the trainer sees {seen}: each would train alone and publish "
            "over the other; on a CPU give --use_cpu true, on GPUs check that every process has one"
        )
