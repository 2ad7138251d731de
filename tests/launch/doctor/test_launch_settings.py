"""Launch file, DeepSpeed's settings, recipe and machine are held against each other."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.config import Setting
from rlhf_pipeline.launch.doctor.findings import Finding
from rlhf_pipeline.launch.doctor.launch_settings import check_environment, check_launch, read_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
GPUS = "distributed_type: MULTI_GPU\nnum_processes: 4\n"


def check(folder: Path, text: str, gpus: int, recipe: dict[str, Any] | None = None, **more: Any) -> list[Finding]:
    (folder / "launch.yaml").write_text(text)
    settings = {name: Setting(name, value, f"recipe.yaml: {name}") for name, value in (recipe or {}).items()}
    return check_launch(str(folder / "launch.yaml"), more.pop("processes", None), settings, gpus, **more)


def deepspeed(folder: Path, **settings: Any) -> str:
    pytest.importorskip("deepspeed")
    (folder / "zero.json").write_text(json.dumps(settings))
    section = f"deepspeed_config:\n  deepspeed_config_file: {folder}/zero.json\n"
    return f"distributed_type: DEEPSPEED\nnum_processes: 2\n{section}"


def test_fitting(tmp_path: Path) -> None:
    (found,) = check(tmp_path, GPUS, 8)
    assert found.status == "pass" and found.seen.endswith("launch.yaml: MULTI_GPU, 4 processes")
    file = str(RECIPES / "accelerate" / "cpu2.yaml")
    assert [found.status for found in check_launch(file, None, read_recipe(str(RECIPES / "demo" / "sft.yaml")), 0)] == [
        "pass"
    ]


def test_refused_by_check_launch(tmp_path: Path) -> None:
    (found,) = check(tmp_path, "distributed_type: MULTI_GPU\n", 8)
    assert found.status == "fail" and "num_processes is None" in found.seen
    assert found.fix == "write a number, or type NPROC=<number>"


def test_fewer_gpus_than_processes(tmp_path: Path) -> None:
    (found,) = check(tmp_path, GPUS, 2)
    assert found.seen.endswith("4 processes on a machine with 2 GPUs") and "--num_processes 2" in found.fix
    machines = "num_machines: 2\nmachine_rank: 1\nmain_process_ip: node-0\nmain_process_port: 29500\n"
    (found,) = check(tmp_path, GPUS + machines, 2)
    assert found.seen.endswith("MULTI_GPU, 2 processes on each of 2 machines")
    (found,) = check(tmp_path, GPUS + machines, 2, processes=8)
    assert found.status == "fail" and "--num_processes 4" in found.fix


def test_gpus_asked_for_and_none(tmp_path: Path) -> None:
    (found,) = check(tmp_path, GPUS, 0)
    assert found.status == "warn" and "cpu2.yaml" in found.fix
    assert [found.status for found in check(tmp_path, GPUS + "use_cpu: true\n", 0)] == ["pass"]


def test_port_in_use_on_one_machine(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        (found,) = check(tmp_path, GPUS + f"main_process_port: {other.getsockname()[1]}\n", 4)
    assert found.status == "warn" and "Address already in use" in found.seen and "main_process_port: 0" in found.fix


def test_deepspeed_against_the_recipe(tmp_path: Path) -> None:
    recipe = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8, "bf16": True}
    text = deepspeed(tmp_path, train_batch_size=32, bf16={"enabled": False}, gradient_accumulation_steps="auto")
    found = check(tmp_path, text, 2, recipe)
    assert [finding.seen.partition("zero.json: ")[2] for finding in found] == [
        "train_batch_size is 32 and the stage's train_batch_size is 64",
        "bf16.enabled is False and the stage's bf16 is True",
    ]
    assert [check.status for check in check(tmp_path, deepspeed(tmp_path, train_batch_size=64), 2, recipe)] == ["pass"]


def test_deepspeed_on_a_cpu_needs_tools(tmp_path: Path) -> None:
    (found,) = check(tmp_path, deepspeed(tmp_path), 0, environ={"PATH": ""})
    assert found.status == "fail" and "ninja is not" in found.seen and found.fix


def test_environment() -> None:
    assert check_environment({}).status == "pass"
    found = check_environment({"WORLD_SIZE": "2", "RANK": "7"})
    assert (found.status, found.seen) == ("fail", "rank 7 of 2 processes: ranks are 0 to 1")
    assert found.fix.startswith("unset RANK")


def test_no_recipe() -> None:
    assert read_recipe("") == {}
