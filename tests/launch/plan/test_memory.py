"""What a GPU holds in each phase: which copies are there when, and which switch moves which line."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.launch.plan.choices import choose
from rlhf_pipeline.launch.plan.memory import Ledger, Memory
from rlhf_pipeline.launch.plan.roles import stage_roles
from rlhf_pipeline.launch.plan.settings import PlanSettings
from rlhf_pipeline.launch.plan.states import Offload, Sharding
from tests.launch.plan.shapes import NETWORK, SCALAR, SHAPES


def memory(zero: int = 0, gpus: int = 2, offload: Offload = "none", **settings: Any) -> Memory:
    planned = PlanSettings(model="small", gpus=gpus, **settings)
    sharding = Sharding(zero, gpus, NETWORK.width, offload)
    return Ledger(planned, stage_roles(planned, SHAPES), sharding, planned.gradient_checkpointing).memory()


def lines(found: Memory, phase: str | None = None) -> dict[str, int]:
    return {part.name: part.bytes for part in (found.held if phase is None else found.phases[phase])}


def test_four_networks_of_their_own() -> None:
    held = lines(memory())
    assert held["weights of policy"] == held["weights of reference"] == 4 * NETWORK.count
    assert held["weights of critic"] == held["weights of reward"] == 4 * SCALAR.count
    assert held["optimizer of critic"] == 8 * SCALAR.count
    assert held["DDP's buckets"] == 4 * (NETWORK.count + SCALAR.count)
    assert not [name for name in held if "optimizer of re" in name]


def test_gradients_are_there_to_train_and_to_step_but_not_to_sample() -> None:
    found = memory()
    assert "gradients of policy" not in lines(found, "generate")
    assert lines(found, "train")["gradients of policy"] == lines(found, "step")["gradients of policy"]


def test_zero_1_reduces_when_all_gradients_are_there() -> None:
    """Beside them then lie those of the parameters that its share touches; only these are left to step."""
    found = memory(zero=1, gpus=4)
    whole, left = (lines(found, phase)["gradients of policy"] for phase in ("train", "step"))
    assert whole == 2 * NETWORK.count and NETWORK.count / 2 <= left < whole
    reduced = lines(found, "reduce")["reduced gradients"]
    assert reduced == left + lines(found, "step")["gradients of critic"]
    assert "reduce" not in memory(zero=2).phases


def test_zero_2_and_3_reduce_one_whole_gradient_after_another() -> None:
    largest = 2 * max(NETWORK.parameters)
    assert lines(memory(zero=2), "train")["largest gradient"] == largest
    assert lines(memory(zero=3), "train")["largest gradient"] == largest
    assert "largest gradient" not in lines(memory(zero=1), "train")
    assert lines(memory(zero=2, offload="optimizer"), "train")["largest gradient"] == 2 * largest  # and a buffer for it


def test_zero_2_adds_micro_batches_up_in_a_second_place() -> None:
    """`accumulating` as `choose` sets it."""
    planned = PlanSettings(model="small", gpus=2, gradient_accumulation_steps=2)
    roles = stage_roles(planned, SHAPES)
    for zero, twice in ((2, 2), (3, 1)):
        found = choose(planned, roles, zero).memory
        total = {**lines(found), **lines(found, "train")}["gradients of policy"]
        once = {**lines(memory(zero=zero)), **lines(memory(zero=zero), "train")}["gradients of policy"]
        assert total == twice * once


def test_gradients_are_stepped_with_in_float32_one_group_after_another() -> None:
    share = (SCALAR.count + 3) // 4 * 2  # the critic's, the larger one
    assert lines(memory(zero=2), "step")["gradients to step with"] == (2 + 4) * share
    assert lines(memory(zero=2, bf16=False), "step")["gradients to step with"] == 4 * share
    assert "gradients to step with" not in lines(memory(zero=2, offload="optimizer"), "step")


def test_one_process_needs_no_buckets() -> None:
    assert "DDP's buckets" not in lines(memory(gpus=1))


def test_a_critic_is_float32_whatever_the_policy_is() -> None:
    held = lines(memory(dtype="bfloat16"))
    assert held["weights of policy"] == 2 * NETWORK.count
    assert held["optimizer of policy"] == 4 * NETWORK.count
    assert held["weights of critic"] == 4 * SCALAR.count


def test_autocast_copies_of_what_is_trained() -> None:
    copies = lines(memory(), "train")
    assert copies["bf16 copies of policy"] == 2 * NETWORK.count
    assert copies["bf16 copies of critic"] == 2 * SCALAR.count
    assert "bf16 copies of critic" not in lines(memory(), "generate")
    assert not [name for name in lines(memory(bf16=False), "train") if "copies" in name]
    assert not [name for name in lines(memory(zero=2), "train") if "copies" in name]


def test_reference_and_reward_are_shared_out_in_stage_3_only() -> None:
    second, third = lines(memory(zero=2)), lines(memory(zero=3))
    assert second["weights of reference"] == 2 * NETWORK.count
    small = 2 * sum(size for size in NETWORK.parameters if size <= 640)
    assert third["weights of reference"] == NETWORK.count + small


def test_a_reward_model_of_its_own_stays_as_loaded_below_stage_3() -> None:
    """The trainer gives DeepSpeed policy, critic and reference there, and the reward model in stage 3 alone."""
    second = memory(zero=2)
    assert lines(second)["weights of reward"] == 4 * SCALAR.count
    assert lines(second, "score")["bf16 copies of reward"] == 2 * SCALAR.count
    assert lines(memory(zero=2, dtype="bfloat16"))["weights of reward"] == 2 * SCALAR.count
    third = memory(zero=3)
    assert lines(third)["weights of reward"] < 4 * SCALAR.count / 2
    assert "bf16 copies of reward" not in lines(third, "score")


def test_stage_3_gathers_the_policy_and_not_the_critic_to_sample() -> None:
    assert lines(memory(zero=3), "generate")["weights gathered to sample"] == 2 * NETWORK.count
    assert "weights gathered to sample" not in lines(memory(zero=3, use_vllm=True), "generate")
    assert "weights gathered to sample" not in lines(memory(zero=2), "generate")


def test_vllm_beside_the_trainer_stays_unless_it_sleeps() -> None:
    sleeps: dict[str, Any] = {"zero": 3, "use_vllm": True, "vllm_tensor_parallel_size": 2}
    awake, asleep = (memory(**sleeps, vllm_enable_sleep_mode=way) for way in (False, True))
    assert lines(awake)["weights of vLLM"] == NETWORK.count
    assert "weights of vLLM" not in lines(asleep)
    assert lines(asleep, "generate")["weights of vLLM"] == NETWORK.count
    assert not [name for name in lines(memory(use_vllm=True, vllm_mode="server")) if "vLLM" in name]


def test_networks_over_one_base() -> None:
    held = lines(memory(use_peft=True, lora_r=2, dtype="bfloat16"))
    matrices = 16 * 2 * 2 * 64  # layers, matrices of rank 2 by 64
    assert held["weights of policy"] == 2 * NETWORK.count + 4 * matrices
    assert held["weights of critic"] == 4 * (matrices + 64)
    assert held["weights of reward"] == 2 * (matrices + 64)
    assert "weights of reference" not in held


def test_a_critic_from_a_whole_reward_model_is_whole() -> None:
    held = lines(memory(use_peft=True, reward="other", critic="reward"))
    assert held["weights of critic"] == 4 * SCALAR.count
    assert held["weights of reward"] == 4 * SCALAR.count


def test_the_average_is_whole_on_every_gpu() -> None:
    assert lines(memory(zero=2, ema_decay=0.99))["moving average"] == 4 * NETWORK.count
    assert "moving average" not in lines(memory(zero=2))


def test_offload_empties_the_gpu_and_fills_the_host() -> None:
    found = memory(zero=3, offload="all")
    assert lines(found)["optimizer of policy"] == 0
    assert found.host > memory(zero=3, offload="optimizer").host > memory(zero=3).host == 0


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_checkpointing_never_takes_more(stage: str, zero: int) -> None:
    off, on = (memory(zero=zero, stage=stage, gradient_checkpointing=way) for way in (False, True))
    assert on.total("train") < off.total("train")
    assert on.held == off.held


def test_logits_are_those_of_completions_and_a_reward_model_has_none() -> None:
    """Each as the head gives it (2 bytes), and four times in float32."""
    assert lines(memory(), "train")["logits"] == 8 * 256 * 100 * (2 + 4 * 4)
    assert lines(memory(stage="sft"), "train")["logits"] == 4096 * 100 * 2  # a tile of TRL's head
    assert "logits" not in lines(memory(stage="reward"), "train")


def test_a_pair_is_two_rows() -> None:
    one, two = (lines(memory(stage=stage), "train") for stage in ("sft", "reward"))
    assert two["activations of reward"] == 2 * one["activations of policy"]


def test_rows_that_fit_are_sampled_at_once() -> None:
    assert memory(per_device_train_batch_size=4, steps_per_generation=8).rows_at_once == 32
    tight = memory(per_device_train_batch_size=4, steps_per_generation=8, memory_gib=0.02, reserve_gib=0.0)
    assert 1 <= tight.rows_at_once < 32
    assert 0 < lines(tight, "generate")["keys and values"] < 0.02 * 2**30


def test_every_line_says_how_it_comes_about() -> None:
    found = memory(zero=3, ema_decay=None, use_vllm=True)
    parts = [*found.held, *(part for phase in found.phases.values() for part in phase)]
    assert all(part.arithmetic and part.bytes >= 0 for part in parts)
