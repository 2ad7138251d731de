"""Everything that one process can find out about its own machine."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

from rlhf_pipeline import __version__
from rlhf_pipeline.config import Setting
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.launch.doctor.artifact_folder import check_artifacts
from rlhf_pipeline.launch.doctor.communication import PREFIXES, check_communication, nccl_version
from rlhf_pipeline.launch.doctor.findings import Finding, refused
from rlhf_pipeline.launch.doctor.gpus import Torch, check_gpus, torch_facts, visible
from rlhf_pipeline.launch.doctor.launch_settings import check_environment, check_launch, read_recipe
from rlhf_pipeline.launch.doctor.model_fit import check_models
from rlhf_pipeline.launch.doctor.nvml import Cards, library, read_cards
from rlhf_pipeline.launch.doctor.packages import TESTED, check_packages, versions
from rlhf_pipeline.launch.doctor.settings import DoctorSettings

VISIBLE = "CUDA_VISIBLE_DEVICES"
STARTS_DOCTORS_ONLY = "SLURM_STEP_NUM_TASKS"
"""Says that srun started this process itself: right for a doctor (`nodes.place`), and not for a stage."""


@dataclass(frozen=True)
class Machine:
    """What must be the same on all machines of a run, and what the checks look at."""

    host: str
    software: dict[str, str]
    variables: dict[str, str]
    gpus: tuple[str, ...]
    cards: Cards | str
    torch: Torch
    nccl: str | None


def read_machine() -> Machine:
    """Look at this machine once."""
    cards, installed, nccl = read_cards(library()), versions(), nccl_version()
    software = {
        "python": platform.python_version(),
        "rlhf_pipeline": __version__,
        **{name: installed[name] for name in TESTED if name in installed},
        **({"NCCL": nccl} if nccl else {}),
        **({} if isinstance(cards, str) else {"driver": cards.driver}),
    }
    return Machine(
        host=socket.gethostname(),
        software=software,
        variables={name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIXES)},
        gpus=()
        if isinstance(cards, str)
        else tuple(card.name for card in visible(cards, os.environ.get(VISIBLE)).cards),
        cards=cards,
        torch=torch_facts(),
        nccl=nccl,
    )


def check_machine(settings: DoctorSettings, machine: Machine) -> list[Finding]:
    """Run every check that needs no other machine."""
    recipe: dict[str, Setting] = {}
    findings = [*check_packages(), *check_gpus(machine.cards, machine.torch, os.environ.get(VISIBLE))]
    interfaces = [name for _, name in socket.if_nameindex()]
    findings += check_communication(os.environ, interfaces, machine.nccl)
    started_by = {name: value for name, value in os.environ.items() if name != STARTS_DOCTORS_ONLY}
    findings += [check_environment(started_by), *check_artifacts(Path(settings.artifacts))]
    try:
        recipe = read_recipe(settings.recipe)
    except ConfigError as error:
        findings.append(refused("recipe", error))
    if settings.launch:
        findings += check_launch(settings.launch, settings.processes, recipe, machine.torch.devices)
    if settings.model:
        findings += check_models(settings, recipe)
    return findings
