"""Refuse launches that would quietly run something else than what was asked for.

`accelerate launch` starts one process, without a word, for `--cpu --num_processes 2` and for `MULTI_CPU` launch files
(accelerate 1.15), and DeepSpeed fails late and at length when half configured. Both show in the environment of the
processes, so a stage looks there before anything heavy is imported. Launch files can also be checked beforehand
(`launch_files`). Left out: starting processes; that is accelerate's, torchrun's and MPI's work.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping

from rlhf_pipeline.errors import Interrupted, LaunchError
from rlhf_pipeline.launch.deepspeed_file import INSTALL_DEEPSPEED, check_deepspeed, from_environment
from rlhf_pipeline.launch.ports import port_problem

# What torchrun and accelerate, PMI (Intel MPI, MPICH), Open MPI and MVAPICH tell a process about its siblings.
WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def check_processes(environ: Mapping[str, str]) -> None:
    """Raise LaunchError where this process was started in a way that cannot be what was meant."""
    if _alone_but_meant_as_one_of_several(environ):
        raise LaunchError(
            "accelerate was asked for several processes and started one (it does for --cpu and for MULTI_CPU); type "
            "`accelerate launch --config_file recipes/accelerate/cpu2.yaml <script>` or `torchrun --nproc_per_node 2 "
            "<script>`, or for one process leave --num_processes out and unset MASTER_ADDR"
        )
    _check_ranks(environ)
    _check_gpus(environ)
    _check_port(environ)
    if under_deepspeed(environ):
        _check_deepspeed(environ)


def _alone_but_meant_as_one_of_several(environ: Mapping[str, str]) -> bool:
    """Whether accelerate's single-process launcher ran although more than one process was asked for.

    It names a meeting point (MASTER_ADDR) only for more than one process, and siblings never appear.
    """
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in environ
    return by_accelerate and "MASTER_ADDR" in environ and not any(name in environ for name in WORLD_SIZES)


def _check_ranks(environ: Mapping[str, str]) -> None:
    """Refuse copies that do not know of each other, and ranks that cannot be."""
    world, rank = world_size(environ), _rank(environ)
    copies = environ.get("SLURM_STEP_NUM_TASKS", "1")
    if copies != "1" and not any(name in environ for name in WORLD_SIZES):
        raise LaunchError(
            f"srun started {copies} copies that do not know of each other, and each would train alone; start one on "
            "each machine (`srun --ntasks-per-node 1 accelerate launch ...`), or export WORLD_SIZE and RANK"
        )
    if world > 1 and rank is None:
        raise LaunchError(f"{world} processes were started and this one has no RANK; start them with accelerate launch")
    if rank is not None and rank >= world:
        raise LaunchError(
            f"rank {rank} of {world} processes: ranks are 0 to {world - 1}; unset RANK and WORLD_SIZE, or start the "
            "processes with accelerate launch"
        )


def _check_gpus(environ: Mapping[str, str]) -> None:
    """Refuse fewer visible GPUs than processes of this machine; none visible means the CPU."""
    local, visible = environ.get("LOCAL_WORLD_SIZE", "1"), visible_gpus(environ)
    if local.isdigit() and 0 < len(visible or []) < int(local):
        raise LaunchError(
            f"{local} processes on this machine and CUDA_VISIBLE_DEVICES={environ['CUDA_VISIBLE_DEVICES']} shows "
            f"{len(visible or [])} GPUs; unset it, or type --num_processes {len(visible or [])} (on the CPU: "
            "CUDA_VISIBLE_DEVICES=)"
        )


def _check_port(environ: Mapping[str, str]) -> None:
    """Refuse a port that rank 0 is about to listen on and cannot; under torchrun its agent listens already."""
    port = environ.get("MASTER_PORT", "")
    if world_size(environ) == 1 or _rank(environ) != 0 or "TORCHELASTIC_USE_AGENT_STORE" in environ or not port:
        return
    problem = port_problem(int(port)) if port.isdigit() else f"`{port}` is no port"
    if problem:
        raise LaunchError(f"MASTER_PORT: {problem}; end the process that has it, or export another MASTER_PORT")


def _check_deepspeed(environ: Mapping[str, str]) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise LaunchError(f"the launch file asks for DeepSpeed, which is not installed; {INSTALL_DEEPSPEED}")
    by_file = environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none") != "none"
    if not by_file and "zero_stage" not in environ.get("ACCELERATE_CONFIG_DS_FIELDS", "zero_stage"):
        raise LaunchError(
            "the launch file asks for DeepSpeed and says neither deepspeed_config_file nor zero_stage; give one of "
            "them under `deepspeed_config:`"
        )
    config, where = from_environment(environ)
    check_deepspeed(config, where, world_size(environ))


def under_deepspeed(environ: Mapping[str, str]) -> bool:
    """Whether the launch file asks for DeepSpeed."""
    return environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("1", "true")


def visible_gpus(environ: Mapping[str, str]) -> list[str] | None:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, or None where it is not set and all are visible."""
    named = environ.get("CUDA_VISIBLE_DEVICES")
    return None if named is None else [word.strip() for word in named.split(",") if word.strip() not in ("", "-1")]


def _rank(environ: Mapping[str, str]) -> int | None:
    for name in RANKS:
        if name in environ:
            if not environ[name].isdigit():
                raise LaunchError(f"{name}={environ[name]!r} is not a rank; unset it")
            return int(environ[name])
    return None


def this_rank(environ: Mapping[str, str]) -> int:
    """Return the rank that the launcher gave this process, 0 without one."""
    return _rank(environ) or 0


@contextlib.contextmanager
def in_process_group() -> Iterator[None]:
    """Leave torch's process group, where a command joined one, at its end: all trainings of the command share it.

    Left as it is, a rank whose library threads still run when Python ends aborts now and then, behind all its work.
    After other errors the launcher ends the ranks, for leaving in order takes them all.
    """
    try:
        yield
    except Interrupted:
        _leave_process_group()
        raise
    _leave_process_group()


def _leave_process_group() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


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
