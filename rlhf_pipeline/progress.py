"""What people see of a running trainer, and what it leaves on disk: a bar, a line per log, metrics.jsonl, checkpoints.

A checkpoint counts only once it carries `COMPLETE`, written when every process has written its part, and old ones go
only then, each losing its mark first. So a process killed at any instant leaves one checkpoint to go on from, and
nothing that a resume could stumble on.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf_pipeline.errors import LaunchError, TrainingError
from rlhf_pipeline.jobs import Job, is_main_process, say
from rlhf_pipeline.sharding import zero_stage
from rlhf_pipeline.stopping import StopOnRequest

COMPLETE = "complete"
METRICS = "metrics.jsonl"
LAUNCHED = "launched.json"
"""In a checkpoint: by how many processes and under which ZeRO stage it was written."""
MUST_BE_FINITE = ("loss", "grad_norm", "eval_loss", "train_loss")
"""Figures that end the run where they are not: the last two also catch what happens between two logs."""


class AlreadyTrained(Exception):
    """The checkpoint that training goes on from is its last one; transformers would take one more step."""


class JobCallback(TrainerCallback):
    """Shows and records one job's training; stops it on a loss or metric that is not a number."""

    def __init__(self, job: Job, shown: Sequence[str], keep: int | None = None) -> None:
        """`shown` are the metrics of the one line per log, in their order; `keep` is how many checkpoints stay."""
        self.job, self.shown, self.keep = job, tuple(shown), keep
        self.bar: tqdm[Any] | None = None
        self.began, self.first_step = time.monotonic(), 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar; a resumed run forgets the metrics of steps it will take again."""
        self.began, self.first_step = time.monotonic(), state.global_step
        if is_main_process():
            _forget_after(self.job.directory / METRICS, state.global_step)
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.job.stage, unit="step", delay=2,
                disable=None, leave=False,
            )  # fmt: skip
        if state.global_step >= state.max_steps:
            raise AlreadyTrained

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record the metrics, print the line, and raise `TrainingError` where a number is none."""
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if is_main_process():
            with (self.job.directory / METRICS).open("a", encoding="utf-8") as file:
                line = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
                file.write(json.dumps({"step": state.global_step, **line}) + "\n")
            self._print(state, numbers)
        self._stop_on_nan(state, numbers)

    def _print(self, state: TrainerState, numbers: dict[str, float]) -> None:
        parts = [f"{name.rpartition('/')[2]} {_short(numbers[name])}" for name in self.shown if name in numbers]
        if parts:
            done = max(state.global_step - self.first_step, 1)
            left = (time.monotonic() - self.began) / done * (state.max_steps - state.global_step)
            line = f"{self.job.stage} {state.global_step}/{state.max_steps}  {'  '.join(parts)}  eta {_clock(left)}"
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def _stop_on_nan(self, state: TrainerState, numbers: dict[str, float]) -> None:
        bad = [name for name in MUST_BE_FINITE if not math.isfinite(numbers.get(name, 0.0))]
        if bad:
            raise TrainingError(
                f"{self.job.stage}: {bad[0]} is {numbers[bad[0]]} at step {state.global_step}; nothing was published "
                f"and the last checkpoint stays in {self.job.checkpoints}; lower `learning_rate` or `max_grad_norm`"
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint complete once all processes have written it, and remove the oldest beyond `keep`."""
        PartialState().wait_for_everyone()
        if is_main_process():
            folder = Path(args.output_dir or "")
            written = json.dumps(launched(args.world_size)) + "\n"
            (folder / f"checkpoint-{state.global_step}" / LAUNCHED).write_text(written, encoding="utf-8")
            (folder / f"checkpoint-{state.global_step}" / COMPLETE).touch()
            steps = sorted(_checkpoints(folder))
            for step in steps[: len(steps) - (self.keep or len(steps))]:
                _remove(folder / f"checkpoint-{step}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


def launched(processes: int) -> dict[str, int]:
    """How this training was started, as far as a checkpoint hangs on it."""
    return {"processes": processes, "zero_stage": zero_stage()}


def watch(trainer: Trainer, job: Job, shown: Sequence[str]) -> None:
    """Show and record `trainer` for `job`, instead of transformers' own printing."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(JobCallback(job, shown, trainer.args.save_total_limit))


def train(trainer: Trainer, job: Job, every: int = 1) -> None:
    """Train, going on from the job's last complete checkpoint where there is one; a request to stop is heard.

    All processes look for it once rank 0 has prepared the job's folder, so they go on from the same one. Transformers
    rotates no checkpoints meanwhile: it would delete the old one before the new one is marked, and goes by age.
    Checkpoints lie at multiples of `every` steps. Raises `LaunchError` where the checkpoint is of another launch, and
    `Interrupted` where the training was stopped.
    """
    trainer.accelerator.wait_for_everyone()
    job.refuse_other_processes(COMPLETE)
    checkpoint = last_checkpoint(job.checkpoints)
    if checkpoint is not None:
        _need_same_launch(checkpoint, trainer.args.world_size)
        say(f"{job.stage}: going on from {checkpoint}")
    stop = StopOnRequest(trainer.accelerator, every)
    trainer.add_callback(stop)
    kept, trainer.args.save_total_limit = trainer.args.save_total_limit, None
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except AlreadyTrained:
        trainer.is_in_train = False
    finally:
        stop.close()
        trainer.args.save_total_limit = kept
    stop.raise_if_stopped(job, trainer.state.global_step)


def _need_same_launch(checkpoint: Path, processes: int) -> None:
    """Raise `LaunchError` where a checkpoint was written under another ZeRO stage, whose files do not fit."""
    file = checkpoint / LAUNCHED
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else launched(processes)
    if before != launched(processes):
        raise LaunchError(
            f"{checkpoint} was written by {_described(before)}, and this is {_described(launched(processes))}: its "
            f"optimizer does not fit. Start it as it was, or remove {checkpoint.parent} to begin anew"
        )


def _described(launch: Mapping[str, int]) -> str:
    stage = launch["zero_stage"]
    return f"{launch['processes']} processes " + (f"under ZeRO-{stage}" if stage else "without ZeRO")


def last_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with most steps; those that were cut off while being saved are removed."""
    found = _checkpoints(folder)
    for step in [step for step, path in found.items() if not (path / COMPLETE).is_file()]:
        cut_off = found.pop(step)
        if is_main_process():
            _remove(cut_off)
    return found[max(found)] if found else None


def _checkpoints(folder: Path) -> dict[int, Path]:
    return {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint, its mark first, so that half of one never counts."""
    (checkpoint / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def _forget_after(file: Path, step: int) -> None:
    """Keep the lines of the steps that were taken, without one that was cut off; a start from step 0 keeps none."""
    if file.is_file():
        lines = file.read_text(encoding="utf-8").splitlines() if step else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        file.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
