"""Published weights and published data through all three stages: REAL_DATA names the folder that holds them.

A few steps only: what is checked is that real rows pass, are counted, and give finite figures. Models of this size do
not get good at it.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from rlhf_pipeline.artifacts.manifest import Manifest
from tests.e2e.pipeline import Pipeline

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BASES = ("stories260K", "stories3M-bitnet")
OASST, HH = "data/oasst-en100/en_100_tree.jsonl", "data/hh-harmless/harmless-base_test.jsonl.gz"
ASSISTANT_MESSAGES, SYNTHETIC, PAIRS, BROKEN_PAIRS, BROKEN_PROMPTS = 670, 22, 2312, 9, 5
STEPS = ("--max_steps", "2", "--on_long_row", "skip", "--learning_rate", "1e-4")
ROLLOUT = ("--max_completion_length", "16", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2")


def real(name: str) -> str:
    folder = os.environ.get("REAL_DATA")
    if not folder:
        pytest.skip("REAL_DATA=<folder with models/ and data/> is not set")
    if not (Path(folder) / name).exists():
        pytest.skip(f"{Path(folder) / name} is not there")
    return str(Path(folder) / name)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pipeline]:
    """One run for each base in one store, all stages done; both policies are rewarded by one reward model."""
    bases = {name: real(f"models/{name}") for name in BASES}
    demonstrations = ("--data", real(OASST))
    pairs = ("--data", real(HH), "--on_bad_row", "skip")
    folder = tmp_path_factory.mktemp("real")
    pipelines = {name: Pipeline(folder / "artifacts", folder, run=name) for name in BASES}
    for name, pipeline in pipelines.items():
        pipeline.make("sft", "--base", bases[name], *demonstrations, *STEPS)
    pipelines[BASES[0]].make("reward", "--model", bases[BASES[0]], "--eval_fraction", "0.1", *pairs, *STEPS)
    for pipeline in pipelines.values():
        pipeline.make("ppo", "--reward", f"{BASES[0]}/reward", "--eval_fraction", "0.005", *ROLLOUT, *pairs, *STEPS)
    return pipelines


def manifest(pipeline: Pipeline, role: str) -> Manifest:
    return pipeline.store.manifest(pipeline.refs()[role])


@pytest.mark.parametrize("base", BASES)
def test_every_stage_publishes(pipelines: dict[str, Pipeline], base: str) -> None:
    pipeline = pipelines[base]
    assert set(pipeline.refs()) >= {"base", "sft", "policy", "critic"}
    assert manifest(pipeline, "policy").parents["reward"] == pipelines[BASES[0]].refs()["reward"]
    assert pipeline.damage() == []


@pytest.mark.parametrize("base", BASES)
def test_every_message_of_a_person_is_learnt_or_counted(pipelines: dict[str, Pipeline], base: str) -> None:
    counts = manifest(pipelines[base], "sft").metrics
    assert counts["rows_bad"] == 0
    assert counts["rows_used"] + counts["rows_long"] == ASSISTANT_MESSAGES
    assert counts["train_examples"] + counts["held_out_examples"] == counts["rows_used"]
    assert counts["rows_dropped_synthetic"] == SYNTHETIC
    assert math.isfinite(counts["eval_loss"])


def test_every_pair_is_learnt_held_out_or_counted(pipelines: dict[str, Pipeline]) -> None:
    counts = manifest(pipelines[BASES[0]], "reward").metrics
    assert counts["rows_bad"] == BROKEN_PAIRS
    assert counts["rows_used"] + counts["rows_long"] + counts["rows_bad"] == PAIRS
    assert counts["held_out_examples"] == pytest.approx(0.1 * counts["rows_used"], rel=0.3)
    assert 0 <= counts["eval_accuracy"] <= 1


@pytest.mark.parametrize("base", BASES)
def test_a_policy_starts_at_its_reference(pipelines: dict[str, Pipeline], base: str) -> None:
    lines = [line for line in pipelines[base].metrics("ppo") if "ppo/kl_nats" in line]
    assert lines[0]["ppo/kl_nats"] == pytest.approx(0, abs=1e-4)
    assert all(math.isfinite(line[name]) for line in lines for name in ("ppo/score", "ppo/kl_nats", "ppo/value_loss"))
    counts = manifest(pipelines[base], "policy").metrics
    assert counts["rows_bad"] == BROKEN_PROMPTS
    assert counts["rows_used"] + counts["rows_long"] + counts["rows_bad"] == PAIRS
