"""PPO under ZeRO-2 on two nodes, which have addresses of their own and one store: undisturbed, cut off, one gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_pipeline.progress import COMPLETE
from tests.distributed.cluster import Cluster, words
from tests.distributed.nodes import Nodes, skip_reason
from tests.distributed.test_same_training import same_figures, same_weights
from tests.e2e.pipeline import Pipeline

pytestmark = pytest.mark.distributed

MODE = "zero2"
TIMEOUT = 10
"""Seconds that a collective call waits for the other node."""


@pytest.fixture(scope="module")
def nodes(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes, each ready to type commands."""
    if reason := skip_reason():
        pytest.skip(reason)
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    yield nodes
    nodes.stop()


@pytest.fixture
def store(cluster: Cluster, tmp_path: Path) -> Pipeline:
    """A store of both nodes, in which PPO has not begun."""
    return cluster.fresh("live", tmp_path / "artifacts")


def command(cluster: Cluster, store: Pipeline, **more: object) -> list[str]:
    """What is typed on both nodes."""
    return store.argv("ppo", *words({**cluster.settings("live", 2), **more}), rows="many-prompts")


def test_two_nodes_train_what_one_does(cluster: Cluster, nodes: Nodes, store: Pipeline) -> None:
    nodes.start(command(cluster, store), MODE)
    assert nodes.statuses(timeout=120) == [0, 0], nodes.said(0) + nodes.said(1)
    assert [nodes.said(number).count(": published ") for number in (0, 1)] == [1, 0]
    assert store.damage() == []
    same_figures(cluster.run("live", MODE), store, "ppo")
    same_weights(cluster.run("live", MODE), store, "ppo")


def behind_the_second_rollout(store: Pipeline) -> None:
    """Wait until a checkpoint of it is complete."""
    end = time.monotonic() + 90
    while not list(store.store.run_dir(store.run, "ppo").glob(f"*/checkpoints/checkpoint-4/{COMPLETE}")):
        assert time.monotonic() < end, "no checkpoint-4 in 90 seconds"
        time.sleep(0.01)


def ends(nodes: Nodes, store: Pipeline, survivors: list[int]) -> None:
    """Every command ends in bounded time, the survivors say who they are, and nothing is published."""
    began = time.monotonic()
    statuses = nodes.statuses(timeout=120)
    assert time.monotonic() - began < TIMEOUT + 60
    assert all(statuses), nodes.said(0)
    for number in survivors:
        said = " ".join(nodes.said(number).split())
        assert f"ppo: rank {number} of 2 lost another one behind step " in said, said[-5000:]
    assert store.damage() == [] and "policy" not in store.refs()


def goes_on(cluster: Cluster, nodes: Nodes, store: Pipeline) -> None:
    """The same command ends where an undisturbed run does."""
    nodes.start(command(cluster, store), MODE)
    assert nodes.statuses(timeout=120) == [0, 0], nodes.said(0) + nodes.said(1)
    assert "ppo: going on from " in nodes.said(0)
    same_figures(cluster.run("live", MODE), store, "ppo")
    same_weights(cluster.run("live", MODE), store, "ppo")


def test_nodes_cut_off_from_each_other_end(cluster: Cluster, nodes: Nodes, store: Pipeline) -> None:
    nodes.start(command(cluster, store, ddp_timeout=TIMEOUT), MODE)
    behind_the_second_rollout(store)
    nodes.plug(1, out=True)
    ends(nodes, store, survivors=[0, 1])
    nodes.plug(1)
    goes_on(cluster, nodes, store)


@pytest.mark.parametrize("gone", [1, 0])
def test_a_node_gone_ends_the_other(cluster: Cluster, nodes: Nodes, store: Pipeline, gone: int) -> None:
    nodes.start(command(cluster, store, ddp_timeout=TIMEOUT), MODE)
    behind_the_second_rollout(store)
    nodes.kill(gone)
    ends(nodes, store, survivors=[1 - gone])
    goes_on(cluster, nodes, store)
