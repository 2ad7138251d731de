"""The batch scripts, with stand-ins for the commands of SLURM, which no test machine has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[1] / "recipes/slurm"


def stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
    (folder / name).chmod(0o755)


def test_each_stage_waits_for_the_one_before(tmp_path: Path) -> None:
    """`sbatch --parsable` prints a number, and the cluster's name behind a semicolon."""
    stand_in(tmp_path, "sbatch", f'echo "$*" >> {tmp_path}/asked; echo "$(wc -l < {tmp_path}/asked);east"')
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(SLURM / "pipeline.sh"), "tldr-1b", "--run", "tldr"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    sft, reward, ppo = (tmp_path / "asked").read_text().splitlines()
    assert "--dependency" not in sft and "stage.sbatch sft --config recipes/tldr-1b/sft.yaml --run tldr" in sft
    assert "--dependency=afterok:1 " in reward and "recipes/tldr-1b/reward.yaml" in reward
    assert "--dependency=afterok:2 " in ppo and "recipes/tldr-1b/ppo.yaml" in ppo


@pytest.mark.parametrize(
    ("said", "status", "queued_again"),
    [("ppo: published", 0, False), ("ppo: stopped by SIGTERM behind step 4", 1, True), ("error: a row", 1, False)],
)
def test_only_a_stage_that_has_saved_is_queued_again(
    tmp_path: Path, said: str, status: int, queued_again: bool
) -> None:
    stand_in(tmp_path, "scontrol", f'[ "$1" = show ] && echo node-0 || echo "$*" > {tmp_path}/requeued')
    stand_in(tmp_path, "srun", f'echo "$*" > {tmp_path}/ran; exit {status}')
    (tmp_path / "rlhf-7.log").write_text(said + "\n")
    slurm = {"JOB_NAME": "rlhf", "JOB_ID": "7", "JOB_NODELIST": "node-[0-1]", "NNODES": "2", "GPUS_ON_NODE": "8"}
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {f"SLURM_{name}": value for name, value in slurm.items()}
    done = subprocess.run(
        ["bash", str(SLURM / "stage.sbatch"), "ppo", "--kl_coef", "0.1"], cwd=tmp_path, env=environment
    )
    assert done.returncode == status
    assert "recipes/ppo.py --kl_coef 0.1" in (tmp_path / "ran").read_text()
    assert (tmp_path / "requeued").exists() == queued_again
