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
    environment |= {"PPO_ARGS": "--gradient_accumulation_steps 2 --kl_coef 0.1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    sft, reward, ppo = (tmp_path / "asked").read_text().splitlines()
    assert "--dependency" not in sft and "stage.sbatch sft --config recipes/tldr-1b/sft.yaml --run tldr" in sft
    assert "--dependency=afterok:1 " in reward and "recipes/tldr-1b/reward.yaml" in reward
    assert "--dependency=afterok:2 --kill-on-invalid-dep=yes " in ppo and "recipes/tldr-1b/ppo.yaml" in ppo
    assert ppo.endswith(" --run tldr --gradient_accumulation_steps 2 --kl_coef 0.1")
    assert sft.endswith(" --run tldr") and reward.endswith(" --run tldr")


@pytest.mark.parametrize("typed", [[], ["no-such-recipe"]])
def test_without_a_recipe_nothing_is_queued(tmp_path: Path, typed: list[str]) -> None:
    stand_in(tmp_path, "sbatch", f"touch {tmp_path}/asked")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([str(SLURM / "pipeline.sh"), *typed], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("said", "status", "queued_again"),
    [("ppo: published", 0, False), ("ppo: stopped by SIGTERM behind step 4", 1, True), ("error: a row", 1, False)],
)
def test_only_a_stage_that_has_saved_is_queued_again(
    tmp_path: Path, said: str, status: int, queued_again: bool
) -> None:
    done = stage(tmp_path, "rlhf-7.log", "", said, status)
    assert done.returncode == status
    assert "recipes/ppo.py --kl_coef 0.1" in (tmp_path / "ran").read_text()
    assert (tmp_path / "requeued").exists() == queued_again


@pytest.mark.parametrize(("said", "queued_again"), [("error: a row", False), ("stopped by SIGTERM", True)])
def test_what_an_earlier_start_wrote_does_not_count(tmp_path: Path, said: str, queued_again: bool) -> None:
    """The log has the name that the job was given, not that of the script."""
    told = f"JobId=7 JobName=rlhf\n   StdErr={tmp_path}/other\n   StdOut={tmp_path}/my.log"
    (tmp_path / "my.log").write_text("ppo: stopped by SIGTERM behind step 4\n")
    stage(tmp_path, "my.log", told, said, 1)
    assert (tmp_path / "requeued").exists() == queued_again
    assert "#SBATCH --open-mode=append\n" in (SLURM / "stage.sbatch").read_text()


def stage(tmp_path: Path, log: str, job: str, said: str, status: int) -> subprocess.CompletedProcess[bytes]:
    """One start of a stage: `job` is what SLURM says of it, `said` what the stage writes."""
    (tmp_path / "job").write_text(job)
    stand_in(
        tmp_path,
        "scontrol",
        f'case "$2" in hostnames) echo node-0;; job) cat {tmp_path}/job;; *) echo "$*" > {tmp_path}/requeued;; esac',
    )
    stand_in(tmp_path, "srun", f'echo "$*" > {tmp_path}/ran; echo "{said}" >> {tmp_path / log}; exit {status}')
    slurm = {"JOB_NAME": "rlhf", "JOB_ID": "7", "JOB_NODELIST": "node-[0-1]", "NNODES": "2", "GPUS_ON_NODE": "8"}
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {f"SLURM_{name}": value for name, value in slurm.items()}
    return subprocess.run(
        ["bash", str(SLURM / "stage.sbatch"), "ppo", "--kl_coef", "0.1"], cwd=tmp_path, env=environment, check=False
    )
