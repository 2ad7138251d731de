"""A killed run goes on under every mode and ends where an undisturbed one does; other launches are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.distributed.cluster import KINDS, Cluster, figures
from tests.distributed.test_same_training import same_figures, same_weights
from tests.e2e import plain_loading
from tests.e2e.fork_server import ROOT
from tests.e2e.instants import Instant
from tests.e2e.pipeline import Pipeline

pytestmark = pytest.mark.distributed

IN_THE_THIRD_ROLLOUT = Instant("rlhf_pipeline.ppo.trainer:PPOTrainer.training_step", 2 * 4 + 3, after=True, rank=1)
IN_THE_LAST_STEP = Instant("transformers.trainer:Trainer.training_step", 4)
SAVING = {"save_strategy": "steps", "save_steps": 1}


def resumed(cluster: Cluster, kind: str, mode: str, store: Pipeline, instant: Instant, **more: object) -> Pipeline:
    """Kill a run, type its command again, and return the store."""
    stage, settings = KINDS[kind][0], {**cluster.settings(kind, 2), **more}
    status, said = cluster.type(store, stage, settings, mode, instant=instant)
    assert status == 1 and store.damage() == [], said
    _, said = cluster.type(store, stage, settings, mode)
    assert f"{stage}: going on from " in said
    return store


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("live", "zero1"), ("live", "zero2"), ("live", "zero3"), ("live", "ddp"), ("live-lora", "zero3")],
)
def test_ppo_goes_on(cluster: Cluster, kind: str, mode: str, tmp_path: Path) -> None:
    store = cluster.fresh(kind, tmp_path / "artifacts")
    resumed(cluster, kind, mode, store, IN_THE_THIRD_ROLLOUT)
    same_figures(cluster.run(kind, mode), store, "ppo")
    same_weights(cluster.run(kind, mode), store, "ppo")


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_the_other_stages_go_on(cluster: Cluster, kind: str, tmp_path: Path) -> None:
    store = cluster.fresh(kind, tmp_path / "artifacts")
    resumed(cluster, kind, "zero3", store, IN_THE_LAST_STEP, **SAVING)
    same_weights(cluster.run(kind, "zero3"), store, kind)
    assert figures(store, kind)[-1] == pytest.approx(figures(cluster.run(kind, "zero3"), kind)[-1], rel=1e-4, abs=1e-4)


def test_another_launch_is_refused_with_the_way_out(cluster: Cluster, tmp_path: Path) -> None:
    store = cluster.fresh("sft", tmp_path / "artifacts")
    settings = {**cluster.settings("sft", 2), **SAVING}
    cluster.type(store, "sft", settings, "zero3", instant=IN_THE_LAST_STEP)
    status, said = cluster.type(store, "sft", settings, "zero2", fails=True)
    assert status == 1 and "2 processes under ZeRO-3, and this is 2 processes under ZeRO-2" in said
    alone = {**settings, "per_device_train_batch_size": 4}
    status, said = cluster.type(store, "sft", alone, fails=True)
    assert status == 2 and "2 processes began this training, and this is 1" in said and "NPROC=2" in said
    assert "sft" not in store.refs()
    _, said = cluster.type(store, "sft", settings, "zero3")
    assert "going on from" in said


def test_what_zero3_publishes_loads_in_plain_libraries(cluster: Cluster, tmp_path: Path) -> None:
    """Every weight is there, and gives the logits of what one process published."""
    pairs = {
        role: [store.store.path(store.refs()[role]) for store in (cluster.run(kind, "one"), cluster.run(kind, "zero3"))]
        for kind, role in [
            ("sft", "sft"), ("reward", "reward"), ("stored", "policy"), ("stored", "critic"),
        ]
    }  # fmt: skip
    lora = [cluster.run("stored-lora", mode) for mode in ("one", "zero3")]
    pairs |= {f"{role}-lora": [s.store.path(s.refs()[role]) for s in lora] for role in ("policy", "critic")}
    output = tmp_path / "logits.safetensors"
    folders = [str(folder) for pair in pairs.values() for folder in pair]
    subprocess.run([sys.executable, plain_loading.__file__, str(output), *folders], check=True, cwd=ROOT)
    logits = load_file(output)
    for role, (one, zero) in pairs.items():
        far = float((logits[str(one)] - logits[str(zero)]).abs().max())
        assert far < 1e-4, (role, far)
