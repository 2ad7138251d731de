"""The ways are compared, the quickest that fits is recommended, and what would help is tried before it is said."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.launch.plan.choices import Choice, choices, choose, recommended, remedies
from rlhf_pipeline.launch.plan.roles import stage_roles
from rlhf_pipeline.launch.plan.settings import PlanSettings
from tests.launch.plan.shapes import SHAPES

NAN, INFINITY = float("nan"), float("inf")


def settings_of(**changes: Any) -> PlanSettings:
    return PlanSettings(**{"model": "small", "gpus": 4, **changes})


def ways(**changes: Any) -> list[Choice]:
    planned = settings_of(**changes)
    return choices(planned, stage_roles(planned, SHAPES))


def test_all_ways_from_the_plainest() -> None:
    assert [(way.sharding.zero, way.sharding.offload) for way in ways()] == [
        (0, "none"), (1, "none"), (1, "optimizer"), (2, "none"), (2, "optimizer"),
        (3, "none"), (3, "optimizer"), (3, "all"),
    ]  # fmt: skip
    assert [way.name for way in ways(zero=3)] == [
        "ZeRO-3", "ZeRO-3, optimizer on the host", "ZeRO-3, weights and optimizer on the host",
    ]  # fmt: skip
    assert ways(zero=0)[0].name == "DDP"
    assert ways(zero=0, gpus=1)[0].name == "one GPU"


@pytest.mark.parametrize("refused", [{"zero": 0, "offload": "all"}, {"zero": 3, "ema_decay": 0.9}])
def test_ways_that_there_are_not(refused: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="needs DeepSpeed"):
        ways(**refused)


def test_the_quickest_that_fits_is_recommended() -> None:
    found = ways()
    best = recommended(found)
    assert best is not None and best.fits
    assert all(best.seconds <= 1.05 * way.seconds for way in found if way.fits)


def test_nothing_is_recommended_that_does_not_fit() -> None:
    found = ways(memory_gib=0.5, reserve_gib=0.499999)
    assert not any(way.fits for way in found)
    assert recommended(found) is None


def test_more_memory_never_takes_a_way_away() -> None:
    small, large = (ways(memory_gib=size, reserve_gib=0.0) for size in (0.02, 0.2))
    assert all(b.fits for a, b in zip(small, large, strict=True) if a.fits)
    assert sum(way.fits for way in small) < sum(way.fits for way in large)


def test_what_would_help_fits() -> None:
    planned = settings_of(memory_gib=0.05, reserve_gib=0.0, gradient_checkpointing=False, zero=3, offload="none")
    assert recommended(choices(planned, stage_roles(planned, SHAPES))) is None
    helps = remedies(planned, SHAPES)
    assert "--per_device_train_batch_size 1" in [typed for typed, _ in helps]
    assert all(way.fits and way.bytes <= planned.usable for _, way in helps)


def test_no_number_of_gpus_is_tried_that_does_not_divide_over_machines() -> None:
    planned = settings_of(gpus=5, memory_gib=0.5, reserve_gib=0.499999)
    assert remedies(planned, SHAPES) == []


def test_a_host_that_is_too_small_is_the_limit() -> None:
    offloaded: dict[str, Any] = {"zero": 3, "offload": "optimizer"}
    assert ways(**offloaded)[0].fits
    [way] = ways(**offloaded, host_gib=0.0001)
    assert not way.fits and way.limit == "the host's memory"
    assert ways(zero=3, offload="none", host_gib=0.0)[0].fits


def test_the_limit_is_the_largest_line_of_the_peak() -> None:
    way = ways(zero=0, per_device_train_batch_size=512, gradient_checkpointing=False)[0]
    assert way.memory.peak == "train"
    assert way.limit == "activations of policy"


def test_a_host_holds_the_shares_of_its_gpus() -> None:
    planned = settings_of(gpus=4, gpus_per_node=2)
    way = choose(planned, stage_roles(planned, SHAPES), 3, "optimizer")
    assert way.host_bytes == 2 * way.memory.host


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, "model: none named"),
        ({"gpus": 0}, "`gpus` is 0"),
        ({"zero": 4}, "`zero` is 4"),
        ({"mfu": 1.5}, "`mfu` is 1.5; it is a share"),
        ({"reserve_gib": 100.0}, "keep back less"),
        ({"network_gb_s": 0.0}, "`network_gb_s` is 0.0"),
        ({"network_gb_s": NAN}, "`network_gb_s` is nan"),
        ({"memory_gib": NAN}, "`memory_gib` is nan"),
        ({"memory_gib": INFINITY}, "`memory_gib` is inf"),
        ({"memory_gib": 1e308}, "`memory_gib` is 1e.308"),
        ({"memory_gib": -5.0}, "`memory_gib` is -5.0"),
        ({"reserve_gib": NAN}, "`reserve_gib` is nan"),
        ({"reserve_gib": -1.0}, "`reserve_gib` is -1.0"),
        ({"host_gib": -5.0}, "`host_gib` is -5.0"),
        ({"host_gib": INFINITY}, "`host_gib` is inf"),
        ({"mfu": NAN}, "`mfu` is nan"),
        ({"ema_decay": NAN}, "`ema_decay` is nan"),
        ({"gpus": 9}, "`gpus` 9 do not divide over 2 machines .* type --gpus 8 or --gpus 10"),
        ({"steps_per_generation": 3, "gradient_accumulation_steps": 2}, "must be a multiple"),
        ({"gpus": 8, "vllm_tensor_parallel_size": 3}, "must divide the 8 gpus"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(**changes)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings_of().gpus = 3  # type: ignore[misc]
