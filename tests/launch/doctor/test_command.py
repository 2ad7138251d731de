"""`rlhf doctor` as it is typed: on this machine, and on two processes that meet."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline import cli
from rlhf_pipeline.errors import LaunchError
from rlhf_pipeline.launch.doctor import artifact_folder, nodes
from rlhf_pipeline.launch.doctor.nodes import Place, place
from tests.tiny import make_llama

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifact_folder, "PROBE", 64 * 1000)


def test_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_llama(tmp_path / "base")
    (tmp_path / "sft.yaml").write_text("max_length: 64\n")
    (tmp_path / "launch.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\nuse_cpu: true\n")
    typed = ["doctor", "--model", "./base", "--recipe", "sft.yaml", "--launch", "launch.yaml", "--json"]
    capsys.readouterr()  # what saving a model says
    status = cli.main(typed)
    told = json.loads(capsys.readouterr().out)
    checks = {finding["check"] for finding in told["findings"]}
    assert {"packages", "gpus", "nccl", "artifacts", "disk space", "environment", "launch file", "model"} <= checks
    assert status == (told["status"] == "fail")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "launch.yaml", "sft.yaml"]


def test_something_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "launch.yaml").write_text("distributed_type: MULTI_CPU\nnum_processes: 2\n")
    assert cli.main(["doctor", "--launch", "launch.yaml", "--recipe", "absent.yaml"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("fail  launch file") and "MULTI_CPU, not 2" in line for line in lines)
    assert any(line.startswith("fail  recipe") and "no file absent.yaml" in line for line in lines)
    assert lines[-1].endswith("2 failed")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--nodes", "2"], "--nodes 2: this doctor is alone; type `accelerate launch"),
        (["--nodes", "0"], "--nodes: `nodes` must be at least 1, not 0"),
        (["--reward", "x"], "--reward: `reward` is compared with a policy; name that with --model too"),
        (["--lunch", "x"], "--lunch: `lunch` is not a setting; did you mean `launch`?"),
    ],
)
def test_refused(typed: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", *typed]) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--help"]) == 0
    assert "--nodes" in capsys.readouterr().out


def test_places() -> None:
    assert place({}) == Place(0, 0, 1)
    assert place({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}) == Place(3, 1, 4)
    assert place({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}) == Place(1, 0, 2)
    with pytest.raises(LaunchError, match="LOCAL_RANK='x' is not a number"):
        place({"LOCAL_RANK": "x"})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def by_torchrun(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}


def by_srun(rank: int) -> dict[str, str]:
    return {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}


def start(launcher: dict[str, str], port: int, *typed: str) -> subprocess.Popen[str]:
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environ = {**os.environ, **launcher, **meeting, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rlhf_pipeline", "doctor", "--json", *typed]
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers(first: subprocess.Popen[str], second: subprocess.Popen[str]) -> dict[str, dict[str, Any]]:
    """The findings of the first, by check; the second has nothing to say."""
    (told, complaint), (nothing, _) = first.communicate(timeout=120), second.communicate(timeout=120)
    assert nothing == "" and second.returncode == 0, complaint
    return {finding["check"]: finding for finding in json.loads(told)["findings"]}


@pytest.mark.distributed
def test_two_processes_of_one_machine(tmp_path: Path) -> None:
    port, folder = free_port(), ("--artifacts", str(tmp_path))
    found = answers(start(by_torchrun(0), port, *folder), start(by_torchrun(1), port, *folder))
    assert found["machines"]["seen"] == f"2 processes on 1 machines: {socket.gethostname()} 2"
    assert found["shared artifacts"]["status"] == found["same software"]["status"] == "pass"
    assert "its locks" in found["shared artifacts"]["seen"] and list(tmp_path.iterdir()) == []


@pytest.mark.distributed
def test_two_that_differ(tmp_path: Path) -> None:
    """The second names a folder of its own, and one machine answers where two should."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    port = free_port()
    first = start(by_srun(0), port, "--nodes", "2", "--artifacts", str(tmp_path / "one"))
    found = answers(first, start(by_srun(1), port, "--nodes", "2", "--artifacts", str(tmp_path / "two")))
    assert found["environment"]["status"] == "pass"
    assert first.returncode == 1 and found["machines"]["status"] == "fail"
    assert found["shared artifacts"]["seen"] == f"named {tmp_path}/one, {tmp_path}/two"
    assert found["machines"]["fix"] == "--nodes says 2; check num_machines, or the list of hosts"


def test_no_meeting_point(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in by_srun(0).items():
        monkeypatch.setenv(name, value)
    assert cli.main(["doctor"]) == 2
    assert "error: MASTER_ADDR is not set; export the name of the first machine" in capsys.readouterr().err


def test_others_that_do_not_come(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "PATIENCE", timedelta(seconds=1))
    for name, value in {**by_torchrun(0), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert "error: rank 0 did not meet all 2 at 127.0.0.1:" in error and "within 1 s" in error
