"""A request to stop is heard at the next step that may be saved; a collective call that fails is put into words."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from rlhf_pipeline.errors import Interrupted, LaunchError, TrainingError
from rlhf_pipeline.stopping import StopOnRequest, ranks_together


class Ranks:
    """An accelerator whose other ranks add `others` to every sum."""

    device = torch.device("cpu")

    def __init__(self, others: float = 0.0) -> None:
        self.others = others

    def reduce(self, x: torch.Tensor, kind: str) -> torch.Tensor:
        """The sum over ranks."""
        assert kind == "sum"
        return x + self.others


def step(stop: StopOnRequest, number: int, last: int = 10) -> TrainerControl:
    control = TrainerControl()
    arguments: Any = TrainingArguments.__new__(TrainingArguments)
    stop.on_step_end(arguments, TrainerState(global_step=number, max_steps=last), control)
    return control


@pytest.fixture
def listening() -> Any:
    stops: list[StopOnRequest] = []

    def make(others: float = 0.0, every: int = 1) -> StopOnRequest:
        stop = StopOnRequest(Ranks(others), every)
        stop.on_train_begin(None, None, None)  # type: ignore[arg-type]
        stops.append(stop)
        return stop

    before = signal.getsignal(signal.SIGTERM)
    yield make
    for stop in stops:
        stop.close()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_stops_at_the_next_step_that_may_be_saved(listening: Any) -> None:
    stop = listening(every=4)
    assert not step(stop, 4).should_training_stop
    os.kill(os.getpid(), signal.SIGTERM)
    assert not step(stop, 5).should_training_stop
    control = step(stop, 8)
    assert control.should_training_stop and control.should_save
    with pytest.raises(Interrupted, match="sft: stopped by SIGTERM behind step 8; checkpoint-8 is saved") as stopped:
        stop.raise_if_stopped(SimpleNamespace(stage="sft"), 8)
    assert stopped.value.exit_code == 75


def test_a_signal_to_another_rank_stops_this_one(listening: Any) -> None:
    assert step(listening(others=1.0), 3).should_training_stop


def test_the_last_step_is_no_reason_to_stop(listening: Any) -> None:
    stop = listening(others=1.0)
    assert not step(stop, 10).should_training_stop
    stop.raise_if_stopped(SimpleNamespace(stage="sft"), 10)


GLOO = "[/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"


@pytest.mark.parametrize("error", [RuntimeError(GLOO), torch.distributed.DistBackendError("NCCL error")])
def test_a_rank_that_is_gone_is_named(error: RuntimeError) -> None:
    trainer: Any = SimpleNamespace(
        args=SimpleNamespace(world_size=4, process_index=2), state=SimpleNamespace(global_step=7)
    )
    job: Any = SimpleNamespace(stage="ppo", checkpoints="runs/checkpoints")
    message = "ppo: rank 2 of 4 lost another one behind step 7 .*goes on from the last"
    with pytest.raises(LaunchError, match=message), ranks_together(trainer, job):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), TrainingError("gloo is a word")])
def test_other_errors_stay_what_they_are(error: RuntimeError) -> None:
    trainer: Any = SimpleNamespace(args=SimpleNamespace(world_size=4))
    with pytest.raises(type(error), match=str(error)), ranks_together(trainer, None):  # type: ignore[arg-type]
        raise error


def test_one_process_has_lost_nobody() -> None:
    trainer: Any = SimpleNamespace(args=SimpleNamespace(world_size=1))
    with pytest.raises(RuntimeError, match="gloo"), ranks_together(trainer, None):  # type: ignore[arg-type]
        raise RuntimeError(GLOO)


class Group:
    """An accelerator that writes down what its ranks do together."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def wait_for_everyone(self) -> None:
        """Wait."""
        self.done.append("wait")


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("end", [None, Interrupted("stopped")])
def test_several_ranks_end_together_when_they_have_done_or_saved(ranks: int, end: Interrupted | None) -> None:
    group = Group()
    trainer: Any = SimpleNamespace(args=SimpleNamespace(world_size=ranks), accelerator=group)
    with pytest.raises(Interrupted) if end else nullcontext(), ranks_together(trainer, None):  # type: ignore[arg-type]
        if end:
            raise end
    assert group.done == (["wait"] if ranks > 1 else [])
