"""A launch that would quietly run something else is refused before anything is loaded."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlhf_pipeline.errors import Interrupted, LaunchError
from rlhf_pipeline.launch.processes import (
    check_processes,
    in_process_group,
    require_world,
    this_rank,
    visible_gpus,
    world_size,
)

RECIPES = Path(__file__).parents[2] / "recipes"

# What `accelerate launch --cpu --num_processes 2` (1.15) gives its one process.
LONELY = {"ACCELERATE_USE_CPU": "True", "ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}


def test_asked_for_two_and_alone() -> None:
    with pytest.raises(LaunchError, match="asked for several processes and started one .*cpu2.yaml"):
        check_processes(LONELY)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True"},
        {**LONELY, "WORLD_SIZE": "2", "RANK": "0"},
        {**LONELY, "PMI_SIZE": "2", "PMI_RANK": "1"},
        {"MASTER_ADDR": "node-1"},
    ],
)
def test_plain_single_and_real_pairs_pass(environ: dict[str, str]) -> None:
    check_processes(environ)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of 2 processes: ranks are 0 to 1"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK='first' is not a rank"),
        ({"WORLD_SIZE": "2"}, "2 processes were started and this one has no RANK"),
        ({"SLURM_STEP_NUM_TASKS": "8"}, "srun started 8 copies that do not know of each other"),
        (
            {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "CUDA_VISIBLE_DEVICES": "0,1"},
            "4 processes on this machine and CUDA_VISIBLE_DEVICES=0,1 shows 2 GPUs",
        ),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "x"}, "MASTER_PORT: `x` is no port"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "99999"}, "MASTER_PORT: 99999 is no port"),
    ],
)
def test_ranks_gpus_and_ports(environ: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        check_processes(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"SLURM_STEP_NUM_TASKS": "2", "WORLD_SIZE": "4", "RANK": "3"},  # srun accelerate launch
        {"SLURM_STEP_NUM_TASKS": "1"},
        {"PMI_SIZE": "2", "PMI_RANK": "1"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""},  # on the CPU
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "GPU-1a,GPU-2b"},
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "99999"},  # rank 0 says so
    ],
)
def test_launches_that_are_well(environ: dict[str, str]) -> None:
    check_processes(environ)


def test_rank_by_any_launcher() -> None:
    assert [this_rank(environ) for environ in ({}, {"RANK": "3"}, {"OMPI_COMM_WORLD_RANK": "2"})] == [0, 3, 2]


def test_visible_gpus() -> None:
    assert visible_gpus({}) is None
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0, 2"}) == ["0", "2"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []


def test_deepspeed_half_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    on = {"ACCELERATE_USE_DEEPSPEED": "true", "WORLD_SIZE": "2", "RANK": "0"}
    with pytest.raises(LaunchError, match="no file .*absent.json"):
        check_processes({**on, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "absent.json")})
    with pytest.raises(LaunchError, match="neither deepspeed_config_file nor zero_stage"):
        check_processes({**on, "ACCELERATE_CONFIG_DS_FIELDS": ""})
    check_processes({**on, "ACCELERATE_CONFIG_DS_FIELDS": "zero_stage,zero3_init_flag"})
    (tmp_path / "zero.json").write_text("{}")
    check_processes({**on, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "zero.json")})


def test_deepspeed_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        LaunchError, match="not installed; in the repository type `.venv/bin/pip install -c constraints"
    ):
        check_processes({"ACCELERATE_USE_DEEPSPEED": "true"})


def test_world_size() -> None:
    assert world_size({}) == 1
    assert world_size({"OMPI_COMM_WORLD_SIZE": "4"}) == 4
    with pytest.raises(LaunchError, match="WORLD_SIZE='two'"):
        world_size({"WORLD_SIZE": "two"})
    require_world(2, {"WORLD_SIZE": "2"})
    with pytest.raises(LaunchError, match="2 processes were started but the trainer sees 1"):
        require_world(1, {"WORLD_SIZE": "2"})


@pytest.mark.distributed
def test_accelerate_cpu_launch_of_two_is_refused() -> None:
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "2"]
    done = subprocess.run([*command, str(RECIPES / "sft.py")], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "started one" in lines[0]


@pytest.mark.distributed
def test_cpu2_launch_file_starts_two_that_can_talk(tmp_path: Path) -> None:
    script = tmp_path / "pair.py"
    script.write_text(
        "import os, torch\n"
        "from transformers import TrainingArguments\n"
        "from rlhf_pipeline.launch.processes import check_processes, require_world\n"
        "check_processes(os.environ)\n"
        "arguments = TrainingArguments('unused', use_cpu=True, bf16=False, ddp_backend='gloo', report_to='none')\n"
        "require_world(arguments.world_size, os.environ)\n"
        "total = torch.ones(1) * (1 + arguments.process_index)\n"
        "torch.distributed.all_reduce(total)\n"
        f"open(os.path.join({str(tmp_path)!r}, f'rank{{arguments.process_index}}'), 'w').write(str(total.item()))\n"
        "torch.distributed.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    launch_file = str(RECIPES / "accelerate" / "cpu2.yaml")
    subprocess.run([*command, "--config_file", launch_file, str(script)], check=True, capture_output=True)
    assert {file.name: file.read_text() for file in tmp_path.glob("rank*")} == {"rank0": "3.0", "rank1": "3.0"}


@pytest.mark.parametrize("error", [None, Interrupted("stopped"), RuntimeError("gone")])
def test_a_command_leaves_its_process_group_when_it_has_done_or_saved(tmp_path: Path, error: Exception | None) -> None:
    with pytest.raises(type(error)) if error else contextlib.nullcontext(), in_process_group():
        for _ in range(2):  # a second training of the command finds the group of the first
            if not torch.distributed.is_initialized():
                store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
                torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        if error:
            raise error
    assert torch.distributed.is_initialized() == isinstance(error, RuntimeError)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
