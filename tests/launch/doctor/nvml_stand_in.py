"""A machine of NVIDIA cards that speaks the function interface of nvidia-ml-py, for tests where there is no card.

`test_nvml` holds its functions and constants against those of the real library. Left out: everything that
`launch.doctor.nvml` does not ask.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any

import pynvml

Memory = namedtuple("Memory", "total free used")
H100 = "NVIDIA H100 80GB HBM3"
GIB = 2**30


class NVMLError(Exception):
    """An error with the number that NVML gives it."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass
class StandInCard:
    """One card as its driver describes it; `mig` None where the card knows no MIG."""

    name: str = H100
    total: int = 80 * GIB
    used: int = 0
    capability: tuple[int, int] = (9, 0)
    links: int = 18
    programs: int = 0
    mig: int | None = 0
    mode: int = pynvml.NVML_COMPUTEMODE_DEFAULT
    uuid: str = "GPU-0a1b2c3d-0000"


@dataclass
class NvmlStandIn:
    """The library: `fails` is nvmlInit's error, `apart` the pairs without peer access, `no_nvlink` those by PCIe."""

    cards: list[StandInCard] = field(default_factory=lambda: [StandInCard() for _ in range(2)])
    driver: str = "580.82.07"
    cuda: int = 13000
    fails: int | None = None
    apart: set[tuple[int, int]] = field(default_factory=set)
    no_nvlink: set[tuple[int, int]] = field(default_factory=set)
    open: int = 0

    NVMLError = NVMLError
    NVML_NVLINK_MAX_LINKS = pynvml.NVML_NVLINK_MAX_LINKS
    NVML_FEATURE_ENABLED = pynvml.NVML_FEATURE_ENABLED
    NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    NVML_COMPUTEMODE_PROHIBITED = pynvml.NVML_COMPUTEMODE_PROHIBITED
    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE
    NVML_P2P_CAPS_INDEX_WRITE = pynvml.NVML_P2P_CAPS_INDEX_WRITE
    NVML_P2P_CAPS_INDEX_NVLINK = pynvml.NVML_P2P_CAPS_INDEX_NVLINK
    NVML_P2P_STATUS_OK = pynvml.NVML_P2P_STATUS_OK
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
    NVML_ERROR_INVALID_ARGUMENT = pynvml.NVML_ERROR_INVALID_ARGUMENT

    def nvmlInit(self) -> None:
        if self.fails is not None:
            raise NVMLError(self.fails)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> StandInCard:
        return self.cards[index]

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return self.cuda

    def nvmlDeviceGetUUID(self, handle: StandInCard) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: StandInCard) -> str:
        return handle.name

    def nvmlDeviceGetMemoryInfo(self, handle: StandInCard, version: Any = None) -> Memory:
        return Memory(handle.total, handle.total - handle.used, handle.used)

    def nvmlDeviceGetCudaComputeCapability(self, handle: StandInCard) -> tuple[int, int]:
        return handle.capability

    def nvmlDeviceGetNvLinkState(self, device: StandInCard, link: int) -> int:
        if link >= device.links:
            raise NVMLError(self.NVML_ERROR_INVALID_ARGUMENT)
        return self.NVML_FEATURE_ENABLED

    def nvmlDeviceGetComputeRunningProcesses(self, handle: StandInCard) -> list[object]:
        return [object()] * handle.programs

    def nvmlDeviceGetMigMode(self, device: StandInCard) -> list[int]:
        if device.mig is None:
            raise NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        return [device.mig, device.mig]

    def nvmlDeviceGetComputeMode(self, handle: StandInCard) -> int:
        return handle.mode

    def nvmlDeviceGetP2PStatus(self, device1: StandInCard, device2: StandInCard, p2pIndex: int) -> int:
        one, two = (next(i for i, card in enumerate(self.cards) if card is d) for d in (device1, device2))
        closed = self.apart | self.no_nvlink if p2pIndex == self.NVML_P2P_CAPS_INDEX_NVLINK else self.apart
        return pynvml.NVML_P2P_STATUS_NOT_SUPPORTED if (one, two) in closed else self.NVML_P2P_STATUS_OK
