"""What a process holds: by hand on small numbers, and against the ZeRO paper's own example."""

from __future__ import annotations

import pytest

from rlhf_pipeline.launch.plan.states import ModelStates, Offload, Precision, Sharding, model_states, partition, whole

MIXED = Precision(2, 2)


def test_replicated_states_by_hand() -> None:
    alone = model_states([100, 20], [30], Sharding(0, 1, 4), Precision(4, 2))
    assert alone == ModelStates(weights=4 * 120 + 2 * 30, gradients=480, optimizer=960, buckets=0)
    assert model_states([100, 20], [30], Sharding(0, 2, 4), Precision(4, 2)).buckets == 480


@pytest.mark.parametrize(("zero", "billions"), [(1, 31.4), (2, 16.6), (3, 1.9)])
def test_the_example_of_the_zero_paper(zero: int, billions: float) -> None:
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters, 64 processes, 2 + 2 + 12 bytes, in GB."""
    states = model_states([75_000_000] * 100, [], Sharding(zero, 64, 64), MIXED)
    assert (states.weights + states.gradients + states.optimizer) / 1e9 == pytest.approx(billions, abs=0.06)


def test_without_sharding_the_paper_counts_120_gb() -> None:
    states = model_states([7_500_000_000], [], Sharding(0, 64, 64), Precision())
    assert (states.weights + states.gradients + states.optimizer) / 1e9 == 120


def test_partitions_are_padded_as_deepspeed_pads_them() -> None:
    sizes = [10, 7, 5]
    assert partition(sizes, Sharding(0, 4, 1)) == 22
    assert partition(sizes, Sharding(2, 4, 1)) == 6  # 22 numbers in one buffer, up to 24
    assert partition(sizes, Sharding(3, 4, 1)) == 3 + 2 + 2  # each parameter for itself


def test_small_parameters_stay_whole_in_stage_3_only() -> None:
    sizes = [10, 40, 41]
    assert whole(sizes, Sharding(3, 2, 4)) == 50
    assert whole(sizes, Sharding(2, 2, 4)) == 0


def test_float32_under_deepspeed_by_hand() -> None:
    """Stages 1 and 2 step a float32 copy even of float32 weights; stage 3 steps the partition itself."""
    sizes = [1000] * 8
    second, third = (model_states(sizes, [], Sharding(zero, 4, 10), Precision()) for zero in (2, 3))
    assert second == ModelStates(weights=4 * 8000, gradients=4 * 2000, optimizer=12 * 2000, buckets=4 * 100)
    assert third == ModelStates(weights=4 * 2000, gradients=4 * 2000, optimizer=8 * 2000, buckets=4 * 100)


def test_stage_1_keeps_whole_gradients() -> None:
    first, second = (model_states([8000], [], Sharding(zero, 4, 10), MIXED) for zero in (1, 2))
    assert (first.gradients, second.gradients) == (16000, 4000)
    assert first.optimizer == second.optimizer


def test_two_halves_of_the_bucket_where_communication_overlaps() -> None:
    assert Sharding(2, 2, 10, overlap=True).bucket == 200
    assert Sharding(3, 2, 10, overlap=True).bucket == Sharding(2, 2, 10).bucket == 100


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_more_processes_never_hold_more(zero: int) -> None:
    few, many = (model_states([999] * 9, [500], Sharding(zero, n, 4), MIXED) for n in (2, 16))
    assert many.optimizer < few.optimizer
    assert many.weights <= few.weights + 2 * 9 * 16  # but for padding


@pytest.mark.parametrize(("offload", "weights"), [("optimizer", 2 * 2000 + 2 * 500), ("all", 0)])
def test_offload_moves_bytes_to_the_host(offload: Offload, weights: int) -> None:
    states = model_states([8000], [2000], Sharding(3, 4, 10, offload), MIXED)
    assert states.weights == weights
    assert (states.gradients, states.optimizer) == (0, 0)
    moved = (12 + 4 + 2) * 2000  # master and moments, float32 gradients, bf16 weights on their way
    assert states.host == moved + (0 if offload == "optimizer" else 2 * 2000 + 2 * 500)


def test_a_frozen_network_has_only_weights() -> None:
    assert model_states([], [800], Sharding(3, 4, 1), MIXED) == ModelStates(weights=400)
