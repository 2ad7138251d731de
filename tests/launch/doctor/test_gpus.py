"""Each thing that is wrong with cards is one finding, with its remedy."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.launch.doctor.findings import Finding
from rlhf_pipeline.launch.doctor.gpus import Torch, check_gpus, visible
from rlhf_pipeline.launch.doctor.nvml import read_cards
from tests.launch.doctor.nvml_stand_in import GIB, NvmlStandIn, StandInCard

TORCH = Torch("2.13.0+cu130", "13.0", devices=2, cpu_bf16=True)


def check(torch: Torch = TORCH, **machine: Any) -> list[Finding]:
    return check_gpus(read_cards(NvmlStandIn(**machine)), torch)


def problems(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.status != "pass"]


def test_a_good_machine() -> None:
    found = check()
    assert problems(found) == []
    assert [finding.seen for finding in found] == [
        "2 x NVIDIA H100 80GB HBM3, 80 GiB each",
        "580.82.07, for CUDA up to 13.0; torch is built for 13.0",
        "every card has it",
        "between all 1 pairs of cards",
        "between all 1 pairs, 18 links a card",
    ]


def test_one_card_has_no_topology() -> None:
    found = check(Torch("2.13.0", "13.0", 1, True), cards=[StandInCard()])
    assert {finding.check for finding in found} == {"gpus", "driver", "bf16"}


@pytest.mark.parametrize(
    ("torch", "machine", "status", "check_name", "seen"),
    [
        (Torch("2.13.0+cpu", None, 0, True), {}, "fail", "gpus", "2 cards, and torch 2.13.0+cpu is built for the CPU"),
        (Torch("2.13.0", "13.0", 0, True), {}, "fail", "gpus", "2 cards, and torch sees none"),
        (TORCH, {"cuda": 12080}, "fail", "driver", "for CUDA up to 12.8; torch is built for 13.0"),
        (Torch("2.13.0", "13.2", 2, True), {}, "warn", "driver", "for CUDA up to 13.0; torch is built for 13.2"),
        (TORCH, {"cards": [StandInCard(), StandInCard("NVIDIA A100")]}, "warn", "gpus", "cards of several kinds"),
        (
            TORCH,
            {"cards": [StandInCard("Tesla V100", capability=(7, 0), links=6)] * 2},
            "warn", "bf16", "Tesla V100 (compute capability 7.0) has none",
        ),
        (
            TORCH,
            {"cards": [StandInCard(), StandInCard(used=12 * GIB, programs=1)]},
            "warn", "gpu use", "GPU 1: 12.0 of 80 GiB in use by 1 programs",
        ),
        (TORCH, {"cards": [StandInCard(mig=1), StandInCard()]}, "warn", "gpu use", "GPU 0 is cut into MIG instances"),
        (TORCH, {"cards": [StandInCard(), StandInCard(mode=3)]}, "warn", "gpu use", "GPU 1 takes one program at most"),
        (TORCH, {"no_nvlink": {(0, 1)}}, "warn", "nvlink", "none between GPU 0 and 1: PCIe carries the gradients"),
        (TORCH, {"cards": [StandInCard(), StandInCard(links=17)]}, "warn", "nvlink", "GPU 1 has fewer links up"),
    ],
)  # fmt: skip
def test_one_thing_wrong(torch: Torch, machine: dict[str, Any], status: str, check_name: str, seen: str) -> None:
    (found,) = problems(check(torch, **machine))
    assert (found.status, found.check) == (status, check_name)
    assert seen in found.seen and found.fix


def test_no_peer_access_is_told_apart_from_no_nvlink() -> None:
    found = problems(check(apart={(0, 1)}))
    assert [(finding.check, finding.status) for finding in found] == [("peer access", "warn"), ("nvlink", "warn")]
    assert "topo -p2p" in found[0].fix


def test_many_pairs_are_counted() -> None:
    cards = [StandInCard(links=0) for _ in range(4)]
    pairs = {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    (found,) = problems(check(Torch("2.13.0", "13.0", 4, True), cards=cards, no_nvlink=pairs))
    assert "GPU 0 and 1, GPU 0 and 2, GPU 0 and 3 and 3 more pairs" in found.seen


def test_hidden_cards_are_told() -> None:
    assert check(Torch("2.13.0", "13.0", 1, True))[0].seen.endswith("CUDA_VISIBLE_DEVICES shows torch 1")


MIXED = [
    StandInCard(uuid="GPU-aaaa-0"),
    StandInCard("Tesla V100", 32 * GIB, 9 * GIB, (7, 0), links=6, mig=1, mode=3, uuid="GPU-bbbb-1"),
    StandInCard(uuid="GPU-bbcc-2"),
]
"""The card in the middle is wrong in every way, and reached by PCIe only."""


@pytest.mark.parametrize("named", ["0,2", " 2 , 0", "GPU-aaaa-0,GPU-bbcc", "2,GPU-aaaa,9,1", "0,2,GPU-bb,1"])
def test_hidden_cards_are_not_judged(named: str) -> None:
    cards = read_cards(NvmlStandIn(cards=MIXED, apart={(0, 1), (1, 2)}))
    assert len(problems(check_gpus(cards, TORCH))) > 5
    assert problems(check_gpus(cards, TORCH, named)) == []
    assert problems(check_gpus(cards, TORCH, "0,1")) != []


@pytest.mark.parametrize("named", ["", "-1", "3", "none"])
def test_all_cards_hidden(named: str) -> None:
    cards = read_cards(NvmlStandIn(cards=MIXED))
    assert not isinstance(cards, str) and visible(cards, named).cards == ()
    (found,) = problems(check_gpus(cards, Torch("2.13.0", "13.0", 0, True), named))
    assert (found.status, found.seen) == ("fail", "3 cards, and torch sees none")


def test_a_mig_instance_is_judged_with_all_cards() -> None:
    cards = read_cards(NvmlStandIn(cards=[StandInCard(mig=1)]))
    (found,) = problems(check_gpus(cards, Torch("2.13.0", "13.0", 1, True), "MIG-1234"))
    assert "cut into MIG instances" in found.seen


def test_no_card() -> None:
    cpu = Torch("2.13.0", None, 0, cpu_bf16=False)
    (found,) = check_gpus("Driver Not Loaded", cpu)
    assert found.status == "pass"
    assert found.seen == "none (Driver Not Loaded): stages run on the CPU, a processor without bf16"
    (found,) = check_gpus("Driver Not Loaded", Torch("2.13.0+rocm", None, 8, True))
    assert found.seen.startswith("8 that torch can use")
    (found,) = check(cpu, cards=[])
    assert "the driver shows no card" in found.seen
