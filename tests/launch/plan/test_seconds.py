"""Seconds from rates, by hand on small numbers."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.launch.plan.activations import cache_bytes, forward_flops
from rlhf_pipeline.launch.plan.gpus import GPUS
from rlhf_pipeline.launch.plan.roles import stage_roles
from rlhf_pipeline.launch.plan.seconds import Time, step_seconds
from rlhf_pipeline.launch.plan.settings import PlanSettings
from rlhf_pipeline.launch.plan.states import Offload, Sharding
from tests.launch.plan.shapes import NETWORK, SCALAR, SHAPES

H100 = GPUS["h100"]
OFFLOADED: tuple[Offload, ...] = ("optimizer", "all")
SERVER: dict[str, Any] = {"use_vllm": True, "vllm_mode": "server"}


def times(zero: int = 0, offload: Offload = "none", rows_at_once: int = 8, **changes: Any) -> dict[str, Time]:
    planned = PlanSettings(**{"model": "small", "gpus": 1, "mfu": 0.5, "bandwidth_share": 0.5, **changes})
    sharding = Sharding(zero, planned.gpus, NETWORK.width, offload)
    found = step_seconds(planned, stage_roles(planned, SHAPES), sharding, planned.gradient_checkpointing, rows_at_once)
    return {time.name: time for time in found}


def test_training_by_hand() -> None:
    """Forward, backward twice as long, and once more to recompute."""
    found = times(stage="sft", max_length=100, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    flops = 4 * forward_flops(NETWORK, 3 * 4 * 100, 100)
    assert found["forward and backward"].seconds == pytest.approx(flops / (0.5 * H100.flops))
    assert list(found) == ["forward and backward"]


def test_sampling_reads_weights_and_cache_for_every_token() -> None:
    found = times(per_device_train_batch_size=8, prompt_tokens=10, max_completion_length=20, mfu=1.0)
    read = 2 * NETWORK.count + 8 * cache_bytes(NETWORK, 2) * (10 + 20 / 2)
    prompts = forward_flops(NETWORK, 80, 10) / H100.flops
    assert found["generate"].seconds == pytest.approx(20 * read / (0.5 * H100.memory_bandwidth) + prompts)


def test_rows_that_do_not_fit_are_sampled_in_turns() -> None:
    one, two = (times(rows_at_once=rows)["generate"].arithmetic for rows in (8, 4))
    assert one.startswith("1 x 256 tokens") and two.startswith("2 x 256 tokens")


def test_vllm_elsewhere_is_not_counted() -> None:
    assert "generate" not in times(use_vllm=True, vllm_mode="server")
    assert "generate" in times(use_vllm=True)


def test_all_four_networks_score_and_two_train() -> None:
    found = times()
    tokens = 8 * (512 + 256)
    score = 2 * forward_flops(NETWORK, tokens, 768) + 2 * forward_flops(SCALAR, tokens, 768)
    assert found["score"].seconds == pytest.approx(score / (0.5 * H100.flops))
    assert found["forward and backward"].seconds == pytest.approx(2 * found["score"].seconds)


def test_epochs_multiply_training_alone() -> None:
    one, four = times(), times(num_iterations=4)
    assert four["forward and backward"].seconds == pytest.approx(4 * one["forward and backward"].seconds)
    assert four["score"] == one["score"]


def test_a_frozen_base_has_no_gradients_of_weights() -> None:
    whole, adapted = (times(stage="sft", use_peft=way)["forward and backward"].seconds for way in (False, True))
    assert adapted == pytest.approx(whole * 3 / 4)


def test_communication_by_hand() -> None:
    """Twice the gradients, in float32 under DDP; (n - 1) / n of it leaves a process."""
    found = times(stage="sft", gpus=4)["communication"]
    assert found.seconds == pytest.approx(4 * 2 * NETWORK.count * 3 / 4 / (0.5 * H100.nvlink))
    assert "communication" not in times(stage="sft")


def test_stage_3_moves_half_as_much_again() -> None:
    """Rajbhandari et al. 2020, section 7.2: three times the parameters against twice."""
    second, third = (times(zero, stage="sft", gpus=4)["communication"].seconds for zero in (2, 3))
    assert third == pytest.approx(1.5 * second)


def test_stage_3_gathers_the_policy_alone_to_sample() -> None:
    sampling, elsewhere = (times(3, gpus=4, **way)["communication"].seconds for way in ({}, SERVER))
    assert sampling - elsewhere == pytest.approx(2 * NETWORK.count * 3 / 4 / (0.5 * H100.nvlink))


def test_between_nodes_the_network_is_the_link() -> None:
    inside, between = (times(stage="sft", gpus=8, gpus_per_node=n)["communication"].seconds for n in (8, 4))
    assert between == pytest.approx(inside * H100.nvlink / H100.network)
    asked = times(stage="sft", gpus=8, gpus_per_node=4, network_gb_s=100.0)["communication"].seconds
    assert asked == pytest.approx(between / 2)


def test_offload_runs_at_the_hosts_pace() -> None:
    found = times(2, "optimizer", stage="sft", gpus=2)
    assert found["offload"].seconds == pytest.approx(32 * NETWORK.count / 2 / 12.5e9)
    assert "offload" not in times(2, stage="sft", gpus=2)


def test_weights_on_the_host_cross_whenever_they_are_gathered() -> None:
    """SFT: once forward and once backward; each process its share; all else as with the optimizer alone there."""
    changes: dict[str, Any] = {"stage": "sft", "gpus": 2, "gradient_accumulation_steps": 3}
    optimizer, weights = (times(3, offload, **changes)["offload"].seconds for offload in OFFLOADED)
    assert weights - optimizer == pytest.approx(2 * (2 * 3 * NETWORK.count) / 2 / 12.5e9)


@pytest.mark.parametrize("gpus", [1, 4])
def test_a_base_on_the_host_crosses_for_every_network_on_it(gpus: int) -> None:
    """Nine passes of PPO: to sample, four to score, and two each for policy and critic."""
    changes: dict[str, Any] = {"gpus": gpus, "use_peft": True, "dtype": "bfloat16", "lora_r": 1}
    optimizer, weights = (times(3, offload, **changes)["offload"].seconds for offload in OFFLOADED)
    policy, critic, _, _ = stage_roles(PlanSettings(model="small", use_peft=True, lora_r=1), SHAPES)
    passes = 5 * NETWORK.count + 4 * SCALAR.count + 4 * sum(policy.trained) + 4 * sum(critic.trained)
    assert weights - optimizer == pytest.approx(2 * passes / gpus / 12.5e9)


def test_a_base_is_gathered_for_every_network_on_it() -> None:
    """Over links too: an epoch passes forward and backward through policy and critic, each with all of the base."""
    one, four = (times(3, gpus=4, num_iterations=n, use_peft=True)["communication"].seconds for n in (1, 4))
    policy, critic, _, _ = stage_roles(PlanSettings(model="small", use_peft=True), SHAPES)
    trained = sum(policy.trained) + sum(critic.trained)
    epoch = 2 * (NETWORK.count + SCALAR.count + trained) + trained
    assert four - one == pytest.approx(3 * 2 * epoch * 3 / 4 / (0.5 * H100.nvlink))
