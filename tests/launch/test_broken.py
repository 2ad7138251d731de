"""Broken configurations and environments: each is one line with the remedy, before anything is trained or written."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_pipeline import cli
from rlhf_pipeline.artifacts import Store
from tests.e2e.refusals import GOOD_ROWS, contents, error_line, write_rows
from tests.tiny import make_llama

ROOT = Path(__file__).parents[2]

AUTO = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 2},
}
"""Settings of DeepSpeed's that pass: every case below changes one thing."""

PAIR = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
"""What torchrun gives to the first of two processes."""

BY_TORCHRUN = {**PAIR, "MASTER_PORT": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
LAUNCH = "distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config: {deepspeed_config_file: zero.json}\n"


class Desk:
    """A folder with a model, rows and launch files, and the commands typed in it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.patch, self.capture = folder, patch, capture
        self.store = Store("artifacts")
        self.rank = ""

    def refused(self, *typed: str) -> str:
        """Type a command that must be refused without a trace, and return its one line."""
        before = contents(self.folder)
        self.capture.readouterr()
        status, stderr = cli.main(list(typed)), self.capture.readouterr().err
        assert contents(self.folder) == before, "a refused command wrote something"
        return error_line(status, stderr.removeprefix(self.rank)).removeprefix("error: ")

    def sft(self, *typed: str) -> str:
        """Type an SFT that must be refused."""
        return self.refused("sft", "--base", "./base", "--data", "sft.jsonl", "--max_steps", "1", *typed)

    def launched(self, environ: dict[str, str]) -> None:
        """Let the next command believe that a launcher started it."""
        for name, value in environ.items():
            self.patch.setenv(name, value)

    def zero(self, **changes: Any) -> None:
        """Let the next command believe that accelerate started it with a JSON of these settings."""
        pytest.importorskip("deepspeed")
        (self.folder / "zero.json").write_text(json.dumps({**AUTO, **changes}))
        self.launched({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": "zero.json"})

    def check_launch(self, text: str) -> str:
        """Check a launch file that must be refused."""
        (self.folder / "launch.yaml").write_text(text)
        return self.refused("check-launch", "launch.yaml")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_llama(folder)
    return folder


@pytest.fixture
def desk(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    shutil.copytree(base, tmp_path / "base")
    for stage in ("sft", "reward"):
        write_rows(tmp_path / f"{stage}.jsonl", GOOD_ROWS[stage])
    monkeypatch.chdir(tmp_path)
    yield Desk(tmp_path, monkeypatch, capfd)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something else listens."""
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        yield int(other.getsockname()[1])


# --- processes that are not what was asked for


@without_gpu
def test_world_of_another_size(desk: Desk) -> None:
    """Where LOCAL_RANK was not exported beside the others, accelerate takes a process for the only one."""
    desk.launched({name: value for name, value in BY_TORCHRUN.items() if name != "LOCAL_RANK"})
    line = desk.sft("--use_cpu", "false", "--ddp_backend", "null")
    assert line.startswith("2 processes were started but the trainer sees 1: each would train alone and publish")
    assert line.endswith("on a CPU give --use_cpu true, on GPUs check that every process has one")


def test_rank_beyond_the_world(desk: Desk) -> None:
    desk.launched({**BY_TORCHRUN, "RANK": "2"})
    desk.rank = "[rank 2] "
    assert desk.sft() == (
        "rank 2 of 2 processes: ranks are 0 to 1; unset RANK and WORLD_SIZE, or start the processes "
        "with accelerate launch"
    )


def test_copies_that_do_not_know_of_each_other(desk: Desk) -> None:
    desk.launched({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"})
    assert desk.sft().startswith("srun started 4 copies that do not know of each other")


def test_one_process_in_the_place_of_two(desk: Desk) -> None:
    desk.launched({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"})
    assert desk.sft().startswith("accelerate was asked for several processes and started one")


def test_fewer_gpus_visible_than_processes(desk: Desk) -> None:
    desk.launched({**BY_TORCHRUN, "CUDA_VISIBLE_DEVICES": "3"})
    assert desk.sft() == (
        "2 processes on this machine and CUDA_VISIBLE_DEVICES=3 shows 1 GPUs; unset it, or type --num_processes 1 "
        "(on the CPU: CUDA_VISIBLE_DEVICES=)"
    )


def test_port_that_is_taken(desk: Desk, taken: int) -> None:
    desk.launched({**PAIR, "MASTER_PORT": str(taken)})
    assert desk.sft() == (
        f"MASTER_PORT: port {taken} cannot be used on {socket.gethostname()}: Address already in use; end the process "
        "that has it, or export another MASTER_PORT"
    )


# --- DeepSpeed


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"zero_optimization": {"stage": 3}},
            "zero_optimization.stage3_gather_16bit_weights_on_model_save is not true, so the trained model would be "
            "saved without its weights; set it to true",
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme", "nvme_path": "absent/nvme"}}},
            "zero_optimization.offload_optimizer.nvme_path: no folder absent/nvme; type `mkdir -p absent/nvme` on "
            "every machine, or name another",
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}},
            "`optimizer` would take the place of the stage's own (learning_rate, optim, weight_decay; PPO's has a "
            "second rate for the critic); remove it",
        ),
        (
            {"train_batch_size": 32, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4},
            "train_batch_size 32 is not 2 x 4 x 1 (train_micro_batch_size_per_gpu x gradient_accumulation_steps x "
            'processes); write "auto" for all three',
        ),
        (
            {"bf16": {"enabled": True}, "fp16": {"enabled": True}},
            'fp16 and bf16 are both enabled; keep one, or write "auto" for both',
        ),
    ],
    ids=["no gather", "no offload folder", "optimizer", "batches", "fp16 and bf16"],
)
def test_deepspeed_settings(desk: Desk, changes: dict[str, Any], line: str) -> None:
    """A stage that accelerate starts, and the check of the launch file, say the same."""
    desk.zero(**changes)
    assert desk.sft() == f"zero.json: {line}"
    assert desk.check_launch(LAUNCH) == f"zero.json: {line.replace('x 4 x 1', 'x 4 x 2')}"


@pytest.mark.distributed
def test_deepspeed_micro_batch_of_another_size_than_the_stage(desk: Desk) -> None:
    """Started for real: the stage's own size is known only once the trainer's arguments are there."""
    desk.zero(train_micro_batch_size_per_gpu=2)
    launch_file = desk.folder / "launch.yaml"
    launch_file.write_text(LAUNCH.replace("zero.json", str(desk.folder / "zero.json")) + "main_process_port: 0\n")
    before = contents(desk.folder)
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(launch_file)]
        + ["recipes/sft.py", "--base", str(desk.folder / "base"), "--data", str(desk.folder / "sft.jsonl")]
        + ["--artifacts", str(desk.folder / "artifacts"), "--per_device_train_batch_size", "4"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0 and contents(desk.folder) == before
    assert (
        f"error: {desk.folder}/zero.json: train_micro_batch_size_per_gpu is 2 and the stage's "
        'per_device_train_batch_size is 4; write "auto"\n'
    ) in done.stderr


def test_deepspeed_without_ninja(desk: Desk) -> None:
    desk.zero()
    desk.launched({"PATH": str(desk.folder)})
    line = desk.sft()
    assert line.startswith("DeepSpeed on a CPU compiles an operation: ninja is not ")
    assert "type `" in line


def test_zero_stage_in_both_places(desk: Desk) -> None:
    desk.zero()
    line = desk.check_launch(LAUNCH.replace("zero.json}", "zero.json, zero_stage: 3}"))
    assert line == "launch.yaml:3: zero_stage stands beside deepspeed_config_file, which has it; remove it here"


# --- launch files of several machines

MACHINES = "distributed_type: MULTI_GPU\nnum_processes: 4\nnum_machines: 2\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (MACHINES, "launch.yaml:3: 2 machines need main_process_ip; add it to launch.yaml"),
        (
            MACHINES + "main_process_ip: 10.0.0.1\nmain_process_port: 29500\n",
            "launch.yaml:3: 2 machines need machine_rank; add it to launch.yaml: 0, and another number on every other "
            "machine",
        ),
        (
            "distributed_type: MULTI_GPU\nnum_processes: 4\ngpu_ids: 0,1\n",
            "launch.yaml:3: gpu_ids names 2 GPUs for 4 processes; write all, or num_processes: 2",
        ),
    ],
    ids=["no address", "no rank", "gpu ids"],
)
def test_launch_files(desk: Desk, text: str, line: str) -> None:
    assert desk.check_launch(text) == line


def test_launch_file_with_a_port_that_is_taken(desk: Desk, taken: int) -> None:
    text = MACHINES + f"machine_rank: 0\nmain_process_ip: 10.0.0.1\nmain_process_port: {taken}\n"
    line = desk.check_launch(text)
    assert line.startswith(f"launch.yaml:6: port {taken} cannot be used on ")


# --- the machine


def test_bf16_on_a_gpu_without_it(desk: Desk) -> None:
    """What torch says of a V100."""
    desk.patch.setattr("rlhf_pipeline.machine.torch.cuda.is_available", lambda: True)
    desk.patch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    desk.patch.setattr("torch.cuda.get_device_capability", lambda: (7, 0))
    desk.patch.setattr("torch.cuda.get_device_name", lambda: "Tesla V100")
    desk.patch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    line = desk.sft("--bf16", "true", "--use_cpu", "true")
    assert line == (
        "--bf16: `bf16`: Tesla V100 (compute capability 7.0) has no bf16; that came with 8.0; leave it out, or give "
        "fp16: true"
    )


@without_gpu
def test_bf16_of_a_gpu_without_a_gpu(desk: Desk) -> None:
    assert "--bf16: Your setup doesn't support bf16/gpu. You need to assign use_cpu" in desk.sft(
        "--bf16", "true", "--use_cpu", "false"
    )


def test_fp16_together_with_bf16(desk: Desk) -> None:
    assert desk.sft("--fp16", "true", "--bf16", "true").startswith("--fp16: At most one of fp16 and bf16 can be True")


def test_disk_nearly_full(desk: Desk) -> None:
    """The model alone fits, the checkpoints do not. A disk that fills up later: `tests/e2e/test_bad_storage.py`."""
    usage = shutil.disk_usage(desk.folder)
    desk.patch.setattr("shutil.disk_usage", lambda path: usage._replace(free=300_000))
    done = cli.main(["sft", "--base", "./base", "--data", "sft.jsonl", "--max_steps", "1"])
    line = error_line(done, desk.capture.readouterr().err.splitlines()[-1])  # behind the bars of what was prepared
    assert "needs" in line and "300.0 kB are free; free some space (`rlhf artifacts gc --yes`" in line
    assert [name for name in desk.store.ids() if not name.startswith("base-")] == [] and desk.store.refs() == {}


def test_artifacts_in_a_file(desk: Desk) -> None:
    line = desk.sft("--artifacts", "sft.jsonl")
    assert line.startswith("sft.jsonl cannot be an artifact store: ") and line.endswith("another one with --artifacts")


def test_two_stages_writing_one_run(desk: Desk) -> None:
    with desk.store.lock("default", "sft"):
        line = desk.sft()
    assert line.startswith(f"default/sft is already running as process {os.getpid()} on {socket.gethostname()} since")
    assert line.endswith("wait until it ends, or use another --run")


def test_ref_to_an_object_that_is_gone(desk: Desk) -> None:
    refs = desk.folder / "artifacts" / "refs" / "default"
    refs.mkdir(parents=True)
    (refs / "sft").write_text("sft-0123456789ab\n")
    line = desk.refused("reward", "--model", "sft", "--data", "reward.jsonl")
    assert line == "artifacts/refs/default/sft names sft-0123456789ab, which is gone; type `rlhf sft`"
