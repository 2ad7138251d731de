"""Whether launch file, DeepSpeed's settings, recipe, environment and machine fit together.

Left out: memory and time; `rlhf plan` works them out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_pipeline.config import Setting, flat_yaml
from rlhf_pipeline.errors import LaunchError, RlhfError
from rlhf_pipeline.launch.build_tools import build_problem
from rlhf_pipeline.launch.deepspeed_file import contradictions
from rlhf_pipeline.launch.doctor.findings import Finding, failed, passed, refused, warned
from rlhf_pipeline.launch.launch_files import Launch, check_launch_file
from rlhf_pipeline.launch.ports import port_problem
from rlhf_pipeline.launch.processes import check_processes

CHECK = "launch file"


def check_environment(environ: Mapping[str, str]) -> Finding:
    """Say whether a stage would start in the environment of this process."""
    try:
        check_processes(environ)
    except LaunchError as error:
        return refused("environment", error)
    return passed("environment", "a stage would start in it")


def read_recipe(file: str) -> dict[str, Setting]:
    """Return the settings of a recipe, none without one; raises ConfigError where the file cannot be read."""
    return flat_yaml(file) if file else {}


def check_launch(
    file: str, processes: int | None, recipe: Mapping[str, Setting], gpus: int, environ: Mapping[str, str] = os.environ
) -> list[Finding]:
    """Check a launch file, and hold it against the recipe and a machine with `gpus` that torch can use."""
    try:
        launch = check_launch_file(file, processes)
    except RlhfError as error:
        return [refused(CHECK, error)]
    problems = [*_gpus(launch, gpus), *_port(launch), *_deepspeed(launch, recipe), *_tools(launch, gpus, environ)]
    machines = f" on each of {launch.machines} machines" if launch.machines > 1 else ""
    return problems or [passed(CHECK, f"{file}: {launch.kind}, {launch.per_machine} processes{machines}")]


def _gpus(launch: Launch, gpus: int) -> Iterator[Finding]:
    if not launch.use_cpu and 0 < gpus < launch.per_machine:
        seen = f"{launch.file}: {launch.per_machine} processes on a machine with {gpus} GPUs"
        yield failed(CHECK, seen, f"type --num_processes {gpus * launch.machines} (make: NPROC=)")
    if not launch.use_cpu and not gpus and launch.kind == "MULTI_GPU":
        yield warned(
            CHECK, f"{launch.file}: asks for GPUs, and there are none", "use recipes/accelerate/cpu2.yaml here"
        )


def _port(launch: Launch) -> Iterator[Finding]:
    if launch.machines == 1 and launch.port and (problem := port_problem(launch.port)):
        fix = "write `main_process_port: 0` for any free one; accelerate would take another with a warning"
        yield warned(CHECK, f"{launch.file}: {problem}", fix)


def _deepspeed(launch: Launch, recipe: Mapping[str, Setting]) -> Iterator[Finding]:
    settings: dict[str, Any] = {name: setting.value for name, setting in recipe.items()}
    factors = [settings.get(name) for name in ("per_device_train_batch_size", "gradient_accumulation_steps")]
    if all(isinstance(factor, int) for factor in factors):
        settings["train_batch_size"] = factors[0] * factors[1] * launch.processes  # type: ignore[operator]
    where = launch.deepspeed_file or launch.file
    for problem in contradictions(launch.deepspeed, settings):
        seen, _, fix = problem.partition("; ")
        yield failed(CHECK, f"{where}: {seen}", fix)


def _tools(launch: Launch, gpus: int, environ: Mapping[str, str]) -> Iterator[Finding]:
    if launch.kind == "DEEPSPEED" and not gpus and (problem := build_problem(environ)):
        seen, _, fix = problem.partition("; ")
        yield failed(CHECK, f"DeepSpeed on a CPU compiles an operation: {seen}", fix)
