"""What a killed, resumed or diverging training leaves behind."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.errors import Interrupted, LaunchError, TrainingError
from rlhf_pipeline.jobs import Job, StageSettings
from rlhf_pipeline.progress import COMPLETE, LAUNCHED, METRICS, JobCallback, last_checkpoint, train, watch


@pytest.fixture
def job(tmp_path: Path) -> Job:
    job = Job("sft", Store(tmp_path / "artifacts"), StageSettings(), {}, {}, {})
    job.directory.mkdir(parents=True)
    return job


class Line(torch.nn.Module):
    """y = w x, with the loss of one example; w starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """x, y: (B,)."""
        return {"loss": ((self.w * x - y) ** 2).mean()}


def make_trainer(job: Job, *, xs: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0), **changes: Any) -> Trainer:
    """Five examples, one a step; logs and saves every step, at a constant learning rate."""
    settings: dict[str, Any] = {
        "max_steps": 3,
        "per_device_train_batch_size": 1,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_steps": 1,
        "save_total_limit": None,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    arguments = TrainingArguments(str(job.checkpoints), **{**settings, **changes})
    rows = [{"x": x, "y": 0.5 * x} for x in xs]
    trainer = Trainer(Line(), arguments, train_dataset=rows)
    watch(trainer, job, ["loss"])
    return trainer


def logged(job: Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.directory / METRICS).read_text().splitlines()]


def weight(trainer: Trainer) -> float:
    return float(trainer.model.w.detach())


def test_every_step_is_recorded_and_said(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(job)
    train(trainer, job)
    steps = [line["step"] for line in logged(job) if "loss" in line]
    assert steps == [1, 2, 3]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sft ")]
    assert [line.split("  ")[0] for line in said] == ["sft 1/3", "sft 2/3", "sft 3/3"]
    assert all("loss " in line and "eta 0:0" in line for line in said)


def test_cut_off_run_goes_on_as_if_it_had_not_been(job: Job) -> None:
    whole = make_trainer(job)
    train(whole, job)
    before = logged(job)
    (job.checkpoints / "checkpoint-3" / COMPLETE).unlink()  # killed while saving step 3
    with (job.directory / METRICS).open("a") as file:
        file.write('{"step": 4, "lo')  # and while writing a line
    resumed = make_trainer(job)
    train(resumed, job)
    assert weight(resumed) == weight(whole)
    assert [line for line in logged(job) if "loss" in line] == [line for line in before if "loss" in line]


def test_run_cut_off_after_its_last_step_takes_no_other(job: Job) -> None:
    """transformers would take a fourth step of three, at the full learning rate."""
    whole = make_trainer(job)
    train(whole, job)
    again = make_trainer(job)
    train(again, job)
    assert again.state.global_step == 3
    assert weight(again) == weight(whole) != 1.0
    assert not again.is_in_train


def test_start_from_nothing_forgets_the_lines_of_the_attempt_before(job: Job) -> None:
    (job.directory / METRICS).write_text('{"step": 0, "eval_loss": 12345}\n{"step": 1, "loss": 12345}\n')
    train(make_trainer(job), job)
    assert all(12345 not in line.values() for line in logged(job))


def test_checkpoints_that_were_cut_off_are_removed(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "absent") is None
    for step, whole in ((2, True), (10, True), (9, False), (11, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"  # by number: 10 is after 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]


def test_other_processes_leave_cut_off_checkpoints_to_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    monkeypatch.setenv("RANK", "1")
    assert last_checkpoint(tmp_path) is None
    assert (tmp_path / "checkpoint-1").is_dir()


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_nan_stops_the_run(job: Job, clip: float) -> None:
    """Without clipping there is no gradient norm, and the loss itself must show it."""
    trainer = make_trainer(job, xs=(1.0, math.inf), max_grad_norm=clip, max_steps=2)
    with pytest.raises(
        TrainingError, match=r"sft: \w+ is (nan|inf) at step [12]; nothing was published .*learning_rate"
    ):
        train(trainer, job)
    assert None in logged(job)[-1].values()  # JSON has no NaN


@pytest.mark.parametrize("name", ["loss", "grad_norm", "eval_loss", "train_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_figures_that_must_be_finite(job: Job, name: str, value: float) -> None:
    state = TrainerState(global_step=7, max_steps=9)
    with pytest.raises(TrainingError, match=f"sft: {name} is {value} at step 7"):
        JobCallback(job, []).on_log(TrainingArguments(use_cpu=True), state, TrainerControl(), logs={name: value})


def test_other_figures_may_be_what_they_are(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    state = TrainerState(global_step=7, max_steps=9)
    logs = {"loss": 0.12345, "odd": math.nan, "tokens": 12, "text": "x"}
    JobCallback(job, ["loss", "tokens", "absent"]).on_log(
        TrainingArguments(use_cpu=True), state, TrainerControl(), logs=logs
    )
    assert logged(job) == [{"step": 7, "loss": 0.12345, "odd": None, "tokens": 12}]
    assert capsys.readouterr().out.startswith("sft 7/9  loss 0.123  tokens 12  eta 0:0")


def test_only_rank_0_writes_and_speaks(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    callback, arguments = JobCallback(job, ["loss"]), TrainingArguments(use_cpu=True)
    callback.on_log(arguments, TrainerState(global_step=1, max_steps=2), TrainerControl(), logs={"loss": 1.0})
    assert not (job.directory / METRICS).exists() and capsys.readouterr().out == ""
    with pytest.raises(TrainingError):
        callback.on_log(arguments, TrainerState(global_step=1, max_steps=2), TrainerControl(), logs={"loss": math.nan})


def test_an_old_checkpoint_goes_only_when_the_new_one_is_marked(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one kept: at the moment of every mark the one before is still whole."""
    whole: list[list[str]] = []
    touch = Path.touch

    def spy(path: Path, *args: Any, **kwargs: Any) -> None:
        if path.name == COMPLETE:
            whole.append(sorted(p.parent.name for p in job.checkpoints.glob(f"*/{COMPLETE}")))
        touch(path, *args, **kwargs)

    monkeypatch.setattr(Path, "touch", spy)
    train(make_trainer(job, save_total_limit=1), job)
    assert whole == [[], ["checkpoint-1"], ["checkpoint-2"]]
    assert [path.name for path in job.checkpoints.iterdir()] == ["checkpoint-3"]


def test_the_oldest_by_step_goes_whatever_its_age(job: Job) -> None:
    trainer = make_trainer(job, save_total_limit=2)
    trainer.add_callback(_Refresh(job.checkpoints / "checkpoint-1"))
    train(trainer, job)
    assert sorted(path.name for path in job.checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    assert trainer.args.save_total_limit == 2


class _Refresh(TrainerCallback):
    """Make a folder the youngest at every step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if self.folder.exists():
            (self.folder / "new").touch()


def test_a_checkpoint_that_is_going_loses_its_mark_first(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull_the_plug(path: Path) -> None:
        raise InterruptedError(path)

    monkeypatch.setattr("rlhf_pipeline.progress.shutil.rmtree", pull_the_plug)
    with pytest.raises(InterruptedError, match="checkpoint-1"):
        train(make_trainer(job, save_total_limit=1), job)
    monkeypatch.undo()
    assert last_checkpoint(job.checkpoints) == job.checkpoints / "checkpoint-2"
    assert not (job.checkpoints / "checkpoint-1").exists()


def test_a_checkpoint_of_another_launch_is_refused(job: Job) -> None:
    train(make_trainer(job, max_steps=1), job)
    file = job.checkpoints / "checkpoint-1" / LAUNCHED
    assert json.loads(file.read_text()) == {"processes": 1, "zero_stage": 0}
    file.write_text('{"processes": 2, "zero_stage": 3}')
    with pytest.raises(
        LaunchError, match="checkpoint-1 was written by 2 processes under ZeRO-3, and this is 1 processes"
    ):
        train(make_trainer(job), job)
    file.unlink()  # of a release that wrote none
    train(make_trainer(job), job)


class _Terminate(TrainerCallback):
    """Send this process SIGTERM in the middle of a step."""

    def on_step_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_and_the_same_call_goes_on(job: Job) -> None:
    """No checkpoint was due."""
    before = signal.getsignal(signal.SIGTERM)
    trainer = make_trainer(job, save_strategy="no")
    trainer.add_callback(_Terminate())
    with pytest.raises(Interrupted, match="stopped by SIGTERM behind step 2"):
        train(trainer, job)
    assert last_checkpoint(job.checkpoints) == job.checkpoints / "checkpoint-2"
    assert signal.getsignal(signal.SIGTERM) is before
    again = make_trainer(job, save_strategy="no")
    train(again, job)
    assert [line["step"] for line in logged(job) if "loss" in line] == [1, 2, 3]
