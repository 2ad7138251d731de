"""What ends a training early without losing it: a request to stop (SIGTERM), and a rank that is gone.

A batch system asks with SIGTERM before it takes a machine away. It reaches the ranks at different moments, so they
agree after every optimizer step, save a checkpoint and end together. A rank that died or hangs leaves the others
waiting in a collective call until it fails (gloo: at once where the other is dead; else after `ddp_timeout` seconds);
they then say who they are and how far they came. Left out: killing them, which is the launcher's work.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf_pipeline.errors import Interrupted, LaunchError, RlhfError, first_line
from rlhf_pipeline.jobs import Job

_OF_COLLECTIVES = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Timed out waiting")
"""What libraries say in a plain RuntimeError when another rank does not answer."""


class StopOnRequest(TrainerCallback):
    """Saves and stops at the next step that is a multiple of `every`, once any rank was sent SIGTERM."""

    def __init__(self, accelerator: Any, every: int = 1) -> None:
        self.accelerator, self.every = accelerator, every
        self.asked = False
        self.stopped = False
        self._before: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen for SIGTERM."""
        self._before = signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Agree with the other ranks whether to go on."""
        if state.global_step % self.every or state.global_step >= state.max_steps:
            return
        asked = torch.tensor(float(self.asked), device=self.accelerator.device)
        if float(self.accelerator.reduce(asked, "sum")) > 0:
            self.stopped = control.should_save = control.should_training_stop = True

    def close(self) -> None:
        """Stop listening."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def raise_if_stopped(self, job: Job, step: int) -> None:
        """Raise `Interrupted` where the training was stopped before its end."""
        if self.stopped:
            raise Interrupted(
                f"{job.stage}: stopped by SIGTERM behind step {step}; checkpoint-{step} is saved, and the same command "
                "goes on from it"
            )


@contextmanager
def ranks_together(trainer: Trainer, job: Job) -> Iterator[None]:
    """Train and publish as one of several ranks, which end together; they leave their group behind the command.

    What a collective call raises when another rank is gone becomes a `LaunchError` with rank and step.
    """
    try:
        yield
        _wait_for_all(trainer)
    except Interrupted:
        _wait_for_all(trainer)
        raise
    except RuntimeError as error:
        if trainer.args.world_size == 1 or isinstance(error, RlhfError) or not _of_a_collective(error):
            raise
        raise LaunchError(
            f"{job.stage}: rank {trainer.args.process_index} of {trainer.args.world_size} lost another one behind step "
            f"{trainer.state.global_step} ({first_line(error)}); what went wrong there is said above, by that rank or "
            f"its node's log. Nothing was published; the same command goes on from the last checkpoint in "
            f"{job.checkpoints}"
        ) from error


def _wait_for_all(trainer: Trainer) -> None:
    if trainer.args.world_size > 1:
        trainer.accelerator.wait_for_everyone()


def _of_a_collective(error: RuntimeError) -> bool:
    return isinstance(error, torch.distributed.DistError) or any(mark in str(error) for mark in _OF_COLLECTIVES)
