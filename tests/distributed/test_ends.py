"""What ends two processes early: SIGTERM, which saves; a rank that dies; a rank that hangs. The store stays valid."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from rlhf_pipeline.progress import COMPLETE
from tests.distributed.cluster import Cluster
from tests.distributed.test_same_training import same_figures, same_weights
from tests.e2e.instants import Instant
from tests.e2e.pipeline import Pipeline

pytestmark = pytest.mark.distributed

STEP = "rlhf_pipeline.ppo.trainer:PPOTrainer.training_step"
SEEN_BY_ONE_RANK = Instant(STEP, 6, signal=signal.SIGTERM, rank=1)
SEEN_BY_THE_LAUNCHER = Instant(STEP, 6, signal=signal.SIGTERM, launcher=True)


def complete(store: Pipeline) -> list[int]:
    """The steps of the checkpoints that a run can go on from."""
    marks = store.store.run_dir(store.run, "ppo").glob(f"*/checkpoints/*/{COMPLETE}")
    return sorted(int(mark.parent.name.partition("-")[2]) for mark in marks)


@pytest.mark.parametrize(
    ("mode", "instant"),
    [("ddp", SEEN_BY_ONE_RANK), ("zero3", SEEN_BY_ONE_RANK), ("zero2", SEEN_BY_THE_LAUNCHER)],
    ids=["rank-ddp", "rank-zero3", "launcher-zero2"],
)
def test_sigterm_saves_and_the_same_command_goes_on(
    cluster: Cluster, mode: str, instant: Instant, tmp_path: Path
) -> None:
    """It arrives inside the second rollout, and no checkpoint is due before the end."""
    store = cluster.fresh("live", tmp_path / "artifacts")
    settings = {**cluster.settings("live", 2), "save_strategy": "no"}
    status, said = cluster.type(store, "ppo", settings, mode, instant=instant)
    assert status == 1, "the launcher's own status"
    assert "ppo: stopped by SIGTERM behind step 4; checkpoint-4 is saved" in said
    assert complete(store) == [4] and store.damage() == [] and "policy" not in store.refs()
    if not instant.launcher:
        assert "exitcode  : 75" in said
    _, said = cluster.type(store, "ppo", settings, mode)
    assert "/checkpoint-4\n" in said
    same_figures(cluster.run("live", mode), store, "ppo")
    same_weights(cluster.run("live", mode), store, "ppo")


@pytest.mark.parametrize("mode", ["ddp", "zero3"])
def test_when_a_rank_dies_the_other_says_so_and_ends(cluster: Cluster, mode: str, tmp_path: Path) -> None:
    store = cluster.fresh("live", tmp_path / "artifacts")
    began = time.monotonic()
    _, said = cluster.kill("live", mode, store, Instant(STEP, 11, rank=1))
    assert time.monotonic() - began < 60
    assert "rank 0 of 2 lost another one behind step 5 (" in said.replace("\n", " ")
    assert complete(store)[-1] == 4


def test_when_a_rank_hangs_the_other_ends_after_the_timeout(cluster: Cluster, tmp_path: Path) -> None:
    store = cluster.fresh("live", tmp_path / "artifacts")
    settings = {**cluster.settings("live", 2), "ddp_timeout": 10}
    began = time.monotonic()
    stopped = Instant(STEP, 11, signal=signal.SIGSTOP, rank=1)
    status, said = cluster.type(store, "ppo", settings, "zero3", instant=stopped)
    assert status == 1 and time.monotonic() - began < 90
    assert "rank 0 of 2 lost another one behind step 5 (" in said
    assert not cluster.server.left_over() and store.damage() == []
    _, said = cluster.type(store, "ppo", cluster.settings("live", 2), "zero3")
    assert "/checkpoint-4\n" in said, "the timeout is no part of what is trained"
