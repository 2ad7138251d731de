"""What a process holds: by hand on small numbers, and against the ZeRO paper's own example."""

from __future__ import annotations

import pytest

from rlhf_pipeline.launch.plan.states import (
    ModelStates,
    Offload,
    Precision,
    Sharding,
    model_states,
    partition,
    touched,
    whole,
)

MIXED = Precision(2, 2)


def test_replicated_states_by_hand() -> None:
    alone = model_states([100, 20], [30], Sharding(0, 1, 4), Precision(4, 2))
    assert alone == ModelStates(weights=4 * 120 + 2 * 30, gradients=480, optimizer=960, buckets=0, backward=480)
    assert model_states([100, 20], [30], Sharding(0, 2, 4), Precision(4, 2)).buckets == 480


@pytest.mark.parametrize(("zero", "billions"), [(1, 31.4), (2, 16.6), (3, 1.9)])
def test_the_example_of_the_zero_paper(zero: int, billions: float) -> None:
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters, 64 processes, 2 + 2 + 12 bytes, in GB."""
    states = model_states([750_000] * 10_000, [], Sharding(zero, 64, 64), MIXED)
    assert (states.weights + states.backward + states.optimizer) / 1e9 == pytest.approx(billions, abs=0.06)


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


def test_parameters_that_shares_cut_have_whole_gradients() -> None:
    sizes = [10, 7, 5]
    assert touched(sizes, Sharding(2, 2, 1)) == 7 + 10  # 12 each: 10 and 2 of 7, or 5 of 7 and 5
    assert touched(sizes, Sharding(2, 4, 1)) == 10 + 7  # 6 each: the second has 4 of 10 and 2 of 7
    assert touched(sizes, Sharding(2, 1, 1)) == 22
    assert touched([3] * 4, Sharding(2, 2, 1)) == 6  # no parameter is cut
    assert touched([], Sharding(2, 2, 1)) == 0


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_every_stage_steps_a_float32_copy_of_its_share(zero: int, width: int) -> None:
    """Of float32 weights too: benchmarks/zero_memory.py counted it in DeepSpeed 0.19."""
    states = model_states([1000] * 8, [], Sharding(zero, 4, 10), Precision(width, width))
    assert states == ModelStates(
        weights=width * (2000 if zero == 3 else 8000),
        gradients=width * 2000,
        optimizer=(4 + 4 + 4) * 2000,
        buckets=width * 100,
        backward=width * (8000 if zero == 1 else 2000),
    )


def test_stage_2_holds_gradients_twice_where_micro_batches_are_accumulated() -> None:
    backward = [
        model_states([8000], [], Sharding(zero, 4, 10, accumulating=True), MIXED).backward for zero in (1, 2, 3)
    ]
    assert backward == [2 * 8000, 2 * 2 * 8000, 2 * 2000]  # one parameter, in every share


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
    assert states.backward == 0
    moved = (12 + 4 + 2) * 2000  # master and moments, gradients in float32 and in bf16
    assert states.host == moved + (0 if offload == "optimizer" else 2 * 2000 + 2 * 500)


def test_stage_1_offloads_gradients_only_when_all_are_there() -> None:
    first, second = (model_states([8000], [], Sharding(zero, 4, 10, "optimizer"), MIXED) for zero in (1, 2))
    assert (first.gradients, first.backward) == (0, 2 * 8000)
    assert (second.gradients, second.backward) == (0, 0)
    assert first.host == second.host == (12 + 4 + 2) * 2000
    adding = model_states([8000], [], Sharding(2, 4, 10, "optimizer", accumulating=True), MIXED)
    assert adding.host == second.host + 2 * 8000  # the sum so far


def test_a_frozen_network_has_only_weights() -> None:
    assert model_states([], [800], Sharding(3, 4, 1), MIXED) == ModelStates(weights=400)
