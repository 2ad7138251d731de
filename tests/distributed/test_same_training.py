"""Two processes train what one does with the same global batch, under DDP and every ZeRO stage, and publish it whole.

Tolerances: figures within a ten-thousandth; weights within `FAR`, where one step moves a weight by a hundredth.
"""

from __future__ import annotations

import pytest
import torch

from tests.distributed.cluster import KINDS, Cluster, figures, weights
from tests.e2e.pipeline import Pipeline

pytestmark = pytest.mark.distributed

FAR = 1e-5
ROLES = {"sft": ("sft",), "reward": ("reward",), "ppo": ("policy", "critic")}


def same_figures(one: Pipeline, other: Pipeline, stage: str) -> None:
    first, second = figures(one, stage), figures(other, stage)
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for a, b in zip(first, second, strict=True):
        for name in a.keys() & b.keys():
            assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-4), (a["step"], name)


def same_weights(one: Pipeline, other: Pipeline, stage: str) -> None:
    for role in ROLES[stage]:
        first, second = weights(one, role), weights(other, role)
        assert first.keys() == second.keys()
        far = {name: float((x - second[name]).abs().max()) for name, x in first.items()}
        worst = max(far, key=lambda name: far[name])
        assert far[worst] < FAR, (role, worst, far[worst])


@pytest.mark.parametrize("mode", ["ddp", "zero3"])
@pytest.mark.parametrize("kind", ["sft", "reward", "sft-lora", "reward-lora", "stored", "stored-lora"])
def test_two_processes_learn_what_one_does(cluster: Cluster, kind: str, mode: str) -> None:
    stage = KINDS[kind][0]
    one, two = cluster.run(kind, "one"), cluster.run(kind, mode)
    same_figures(one, two, stage)
    same_weights(one, two, stage)


@pytest.mark.parametrize("mode", ["zero1", "zero2", "zero3-offload"])
def test_a_stored_rollout_under_the_other_stages(cluster: Cluster, mode: str) -> None:
    one, two = cluster.run("stored", "one"), cluster.run("stored", mode)
    same_figures(one, two, "ppo")
    same_weights(one, two, "ppo")


@pytest.mark.parametrize(
    ("kind", "mode"), [("live", "zero1"), ("live", "zero2"), ("live", "zero3"), ("live-lora", "zero3")]
)
def test_sampled_rollouts_are_those_of_ddp(cluster: Cluster, kind: str, mode: str) -> None:
    ddp, zero = cluster.run(kind, "ddp"), cluster.run(kind, mode)
    same_figures(ddp, zero, "ppo")
    same_weights(ddp, zero, "ppo")


def test_the_runs_are_worth_comparing(cluster: Cluster) -> None:
    """Training moves every network by far more than the tolerance, and completions differ in length."""
    start, end = weights(cluster.run("stored", "one"), "reward"), weights(cluster.run("stored", "one"), "critic")
    assert max(float((start[name] - end[name]).abs().max()) for name in start) > 100 * FAR
    rollouts = [line for line in figures(cluster.run("live", "ddp"), "ppo") if "ppo/completion_tokens" in line]
    assert len(rollouts) == 4
    assert any(line["ppo/eos_fraction"] not in (0, 1) for line in rollouts)
    assert torch.isfinite(torch.tensor([line["ppo/kl_nats"] for line in rollouts])).all()
