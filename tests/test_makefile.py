"""What `make` would type, read from a dry run: nothing is installed and nothing is trained."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = ".venv/bin"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def dry_run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    names = (
        "RUN",
        "DATA",
        "BASE",
        "MODEL",
        "SEED",
        "FORCE",
        "LAUNCH",
        "NPROC",
        "MAKEFLAGS",
        "MAKELEVEL",
        "ARGS",
        "VENV",
    )
    environ = {name: value for name, value in os.environ.items() if name not in names}
    command = ["make", "--dry-run", "--assume-old=install", "--no-print-directory", *words]
    quiet = {"CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.run(command, cwd=ROOT, env={**environ, **quiet}, capture_output=True, text=True, check=False)


def typed(*words: str, **variables: str) -> list[str]:
    """The commands of ours that a target would run, blanks squeezed."""
    done = dry_run(*words, **variables)
    assert done.returncode == 0, done.stderr
    joined = done.stdout.replace("\\\n", " ")
    return [" ".join(line.split()) for line in joined.splitlines() if line.startswith((f"{BIN}/rlhf", f"{BIN}/accel"))]


def test_a_stage_is_one_command() -> None:
    assert typed("sft", "BASE=some/base", "DATA=d.jsonl") == [
        f"{BIN}/rlhf sft --base 'some/base' --data 'd.jsonl' --run 'default' --artifacts 'artifacts'"
    ]
    assert typed("rm", "RM_DATA=r", "MODEL=m") == typed("reward", "RM_DATA=r", "MODEL=m")
    assert typed("ppo", "REWARD=r", "RUN=x", "SEED=3", "FORCE=1", "ARGS=--kl_coef 0.1", "PPO_DATA=p") == [
        f"{BIN}/rlhf ppo --reward r --data 'p' --run 'x' --artifacts 'artifacts' --force --seed 3 --kl_coef 0.1"
    ]
    assert typed("ppo", "RECIPE=tldr-1b")[0].startswith(f"{BIN}/rlhf ppo --config recipes/tldr-1b/ppo.yaml --run")


def test_force_0_is_off() -> None:
    assert "--force" not in typed("sft", "FORCE=0")[0]


def test_three_stages_in_order_with_their_own_data() -> None:
    commands = typed("sft", "rm", "ppo", "BASE=b", "SFT_DATA=1", "RM_DATA=2", "PPO_DATA=3")
    assert [command.split()[1] for command in commands] == ["sft", "reward", "ppo"]
    assert [command.split("--data ")[1].split()[0] for command in commands] == ["'1'", "'2'", "'3'"]


def test_data_for_two_stages_is_refused() -> None:
    done = dry_run("sft", "rm", "DATA=d")
    assert done.returncode == 2
    assert "DATA= serves one stage" in done.stderr


@pytest.mark.parametrize(
    ("words", "launch_file", "processes"),
    [
        (["LAUNCH=cpu2"], "recipes/accelerate/cpu2.yaml", None),
        (["LAUNCH=recipes/accelerate/gpu1.yaml"], "recipes/accelerate/gpu1.yaml", None),
        (["NPROC=2"], "recipes/accelerate/cpu2.yaml", "2"),
        (["LAUNCH=nvlink", "NPROC=4"], "recipes/accelerate/nvlink.yaml", "4"),
        (["LAUNCH=my-own.yaml"], "my-own.yaml", None),
    ],
)
def test_launching(words: list[str], launch_file: str, processes: str | None) -> None:
    check, launch = typed("sft", *words)
    assert check.split()[:3] == [f"{BIN}/rlhf", "check-launch", f"'{launch_file}'"]
    assert f"launch --quiet --config_file '{launch_file}' " in launch
    assert " recipes/sft.py " in launch
    assert ("--num_processes" in launch) == (processes is not None)
    assert check.split()[3:] == ([processes] if processes else [])


@pytest.mark.parametrize(
    ("launch", "wanted"), [("zero3", True), ("recipes/accelerate/nodes2.yaml", True), ("nvlink", False), ("", False)]
)
def test_deepspeed_is_installed_where_the_launch_file_asks_for_it(tmp_path: Path, launch: str, wanted: bool) -> None:
    command = ["make", "--dry-run", f"VENV={tmp_path}/venv", "sft", *([f"LAUNCH={launch}"] if launch else [])]
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert ("--editable '.[deepspeed]'" in done.stdout) == wanted


def test_one_process_needs_no_launcher() -> None:
    assert len(typed("sft", "NPROC=1")) == 1


def test_several_gpus_are_all_used() -> None:
    assert "'recipes/accelerate/nvlink.yaml' --num_processes 3 " in typed("sft", CUDA_VISIBLE_DEVICES="0,2,5")[1]
    assert len(typed("sft", CUDA_VISIBLE_DEVICES="1")) == 1


def test_the_demo_shows_every_command_and_names_its_run_by_the_seed() -> None:
    commands = typed("demo")
    order = ["world", "pretrain", "sft", "sample", "label", "reward", "ppo", "eval"]
    assert [command.split()[1] for command in commands] == order
    assert all("--run 'demo-seed0'" in command for command in commands[1:])
    assert all("'demo-seed1'" in command for command in typed("demo", "SEED=1")[1:])
    assert all("'mine'" in command for command in typed("demo", "RUN=mine")[1:])
    assert all("--seed 1" in command for command in typed("demo", "SEED=1")[:-1])


def test_overoptimise_changes_only_the_penalty() -> None:
    *demo, reward, penalty, free, plot = typed("demo-overoptimise", "SEED=1")
    assert demo == typed("demo", "SEED=1")
    assert "--run 'demo-seed1-weak'" in reward
    assert "--max_steps 30 --model demo-seed1/sft" in reward
    assert "--reward demo-seed1-weak/reward recipes/demo/judge.py:judge" in penalty
    assert free == penalty.replace("-weak-penalty'", "-weak-kl0'") + " --kl_coef 0"
    assert plot.startswith(f"{BIN}/rlhf eval --frontier demo-seed1-weak-penalty demo-seed1-weak-kl0")


def test_help_is_the_default() -> None:
    assert dry_run().stdout == dry_run("help").stdout
    for target in ("demo", "demo-overoptimise", "sft", "rm", "ppo", "eval", "install", "test", "check", "clean"):
        assert f"make {target}" in dry_run("help").stdout


def test_an_old_python_is_named(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", f"VENV={tmp_path}/venv", f"PYTHON={old}", "install"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"error: {old} is older than 3.11" in done.stderr
