"""Compare the machines of a run: one doctor on each, joined by gloo as training would be.

The launcher starts the doctors, as it starts a stage: `accelerate launch`, `torchrun`, or `srun` with MASTER_ADDR. Rank
0 hears all of them. Left out: starting them, and the speed of NVLink and InfiniBand under NCCL.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rlhf_pipeline.artifacts.locks import held, is_free
from rlhf_pipeline.artifacts.storage import nearest_folder
from rlhf_pipeline.errors import LaunchError, first_line
from rlhf_pipeline.launch.doctor.comparison import Answer, compare
from rlhf_pipeline.launch.doctor.findings import Finding
from rlhf_pipeline.launch.doctor.local import check_machine, read_machine
from rlhf_pipeline.launch.doctor.settings import DoctorSettings
from rlhf_pipeline.launch.processes import this_rank, world_size

PATIENCE = timedelta(minutes=2)
MEGABYTES = 8


@dataclass(frozen=True)
class Place:
    """Where this process stands among all; `local_rank` counts those of its machine."""

    rank: int
    local_rank: int
    world: int


def place(environ: Mapping[str, str]) -> Place:
    """Read the place from what the launcher, or srun alone, says; raises LaunchError where that is no number."""
    world, rank = world_size(environ), this_rank(environ)
    local = _number(environ, "LOCAL_RANK" if "LOCAL_RANK" in environ else "SLURM_LOCALID")
    if world == 1 and "SLURM_STEP_NUM_TASKS" in environ and "WORLD_SIZE" not in environ:
        world, rank = _number(environ, "SLURM_STEP_NUM_TASKS"), _number(environ, "SLURM_PROCID")
    return Place(rank, local, world)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "0")
    if not text.isdigit():
        raise LaunchError(f"{name}={text!r} is not a number; unset it")
    return int(text)


def check_nodes(settings: DoctorSettings, here: Place) -> list[Finding]:
    """Check this machine and compare it with the others; every process calls this, rank 0 gets the findings."""
    import torch.distributed as dist

    machine = read_machine()
    findings = check_machine(settings, machine) if here.local_rank == 0 else []
    _join(here)
    try:
        shared, excluded = _same_folder(Path(settings.artifacts), here.rank)
        clock, rate = _clock(), _network_rate()
        answer = Answer(
            host=machine.host,
            software=machine.software,
            variables=machine.variables,
            gpus=machine.gpus,
            folder=str(Path(settings.artifacts).absolute()),
            shared=shared,
            excluded=excluded,
            clock=clock,
            rate=rate,
            findings=tuple(findings),
        )
        answers: list[Any] = [None] * here.world
        dist.all_gather_object(answers, answer)
    finally:
        dist.destroy_process_group()
    return compare(answers, settings.nodes) if here.rank == 0 else []


def _join(here: Place) -> None:
    """Meet the others; raises LaunchError where they do not all come."""
    import torch.distributed as dist

    if "MASTER_ADDR" not in os.environ:
        raise LaunchError("MASTER_ADDR is not set; export the name of the first machine, the same on all")
    os.environ.setdefault("MASTER_PORT", "29500")
    try:
        dist.init_process_group("gloo", rank=here.rank, world_size=here.world, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        meeting = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise LaunchError(
            f"rank {here.rank} did not meet all {here.world} at {meeting} within {PATIENCE.seconds} s "
            f"({first_line(error)}); check that every machine runs it, and that the firewall lets ports through"
        ) from error


def _same_folder(root: Path, rank: int) -> tuple[bool, bool]:
    """Return whether this process sees what rank 0 has just written there, and a lock that rank 0 holds."""
    if rank == 0:
        return _show_others(root)
    import torch.distributed as dist

    told: list[Any] = [None]
    dist.broadcast_object_list(told)
    dist.barrier()
    seen = told[0] is not None and Path(told[0]).is_file()
    excluded = seen and not is_free(Path(told[0]))
    dist.barrier()
    return seen, excluded


def _show_others(root: Path) -> tuple[bool, bool]:
    """Hold a lock in `root` while the others look for it; (False, False) where it cannot be written."""
    import torch.distributed as dist

    with ExitStack() as stack:
        token: Path | None = None
        try:
            path = nearest_folder(root) / f".rlhf-doctor-{secrets.token_hex(8)}"
            stack.enter_context(held(path))
            stack.callback(path.unlink)
            token = path
        except OSError:
            pass  # the check of the folder itself says why
        dist.broadcast_object_list([token and str(token)])
        dist.barrier()
        dist.barrier()
    return token is not None, token is not None


def _clock() -> float:
    """Return the time of day at an instant that is the same for all, in seconds."""
    import torch.distributed as dist

    dist.barrier()
    return time.time()


def _network_rate() -> float:
    """Return the bytes a second that a process sends in an all-reduce: the best of three, over gloo and TCP."""
    import torch
    import torch.distributed as dist

    numbers, best = torch.ones(MEGABYTES * 250_000), float("inf")
    for _ in range(3):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(numbers)
        best = min(best, time.perf_counter() - start)
    world = dist.get_world_size()
    return 2 * (world - 1) / world * MEGABYTES * 1e6 / best
