"""What the driver says is read as it is; the stand-in speaks the interface of the real library."""

from __future__ import annotations

import inspect

import pynvml
import pytest

from rlhf_pipeline.launch.doctor.nvml import Cards, Pair, library, read_cards
from tests.launch.doctor.nvml_stand_in import GIB, H100, NVMLError, NvmlStandIn, StandInCard


def has_driver() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    pynvml.nvmlShutdown()
    return True


FUNCTIONS = [name for name in vars(NvmlStandIn) if name.startswith("nvml")]
CONSTANTS = [name for name in vars(NvmlStandIn) if name.startswith("NVML_")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_stand_in_has_the_functions_of_the_library(name: str) -> None:
    real, mine = (list(inspect.signature(of).parameters) for of in (getattr(pynvml, name), getattr(NvmlStandIn, name)))
    assert mine[1:] == real


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_numbers(name: str) -> None:
    """One that is a tuple (NVML_P2P_CAPS_INDEX_READ is, in 13.615) cannot be passed to the driver."""
    assert isinstance(getattr(pynvml, name), int)


@pytest.mark.skipif(has_driver(), reason="there is an NVIDIA driver")
def test_no_driver() -> None:
    assert read_cards(library()) in ("NVML Shared Library Not Found", "Driver Not Loaded")


@pytest.mark.gpu
@pytest.mark.skipif(not has_driver(), reason="there is no NVIDIA driver")
def test_real_cards() -> None:
    cards = read_cards(library())
    assert isinstance(cards, Cards) and cards.cards and cards.cuda >= (11, 0)
    assert all(card.memory > GIB and card.capability >= (5, 0) for card in cards.cards)
    assert len(cards.pairs) == len(cards.cards) * (len(cards.cards) - 1) // 2


def test_two_cards() -> None:
    nvml = NvmlStandIn(cards=[StandInCard(used=GIB, programs=1), StandInCard(mig=1, links=17)])
    cards = read_cards(nvml)
    assert isinstance(cards, Cards) and nvml.open == 0
    assert (cards.driver, cards.cuda) == ("580.82.07", (13, 0))
    first, second = cards.cards
    assert (first.name, first.memory, first.used, first.users) == (H100, 80 * GIB, GIB, 1)
    assert (first.links, second.links) == (18, 17) and (first.mig, second.mig) == (False, True)
    assert cards.pairs == (Pair((0, 1), peer=True, nvlink=True),)


def test_pairs_of_three() -> None:
    nvml = NvmlStandIn(cards=[StandInCard() for _ in range(3)], apart={(0, 2)}, no_nvlink={(1, 2)})
    cards = read_cards(nvml)
    assert isinstance(cards, Cards)
    assert [(pair.cards, pair.peer, pair.nvlink) for pair in cards.pairs] == [
        ((0, 1), True, True), ((0, 2), False, False), ((1, 2), True, False),
    ]  # fmt: skip


def test_what_a_card_cannot_answer_is_none() -> None:
    cards = read_cards(NvmlStandIn(cards=[StandInCard(links=0, mig=None)]))
    assert isinstance(cards, Cards)
    assert (cards.cards[0].links, cards.cards[0].mig, cards.pairs) == (0, False, ())


def test_errors_are_told() -> None:
    assert read_cards(NvmlStandIn(fails=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)) == "NVML error 9"

    class Lost(NvmlStandIn):
        def nvmlDeviceGetName(self, handle: StandInCard) -> str:
            raise NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    lost = Lost()
    assert read_cards(lost) == f"NVML error {pynvml.NVML_ERROR_GPU_IS_LOST}" and lost.open == 0
