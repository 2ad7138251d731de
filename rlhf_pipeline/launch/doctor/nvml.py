"""Ask the NVIDIA driver what cards there are and how they are joined, by its own library (NVML).

Facts only; `gpus` judges them. Left out: other makers' cards, which torch alone answers for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Card:
    """One GPU: memory in bytes, capability as (major, minor), `links` the NVLinks that are up."""

    index: int
    uuid: str
    name: str
    memory: int
    used: int
    capability: tuple[int, int]
    links: int
    users: int
    mig: bool
    shareable: bool


@dataclass(frozen=True)
class Pair:
    """How two cards reach each other: `peer` without the host's memory, `nvlink` by NVLink."""

    cards: tuple[int, int]
    peer: bool
    nvlink: bool


@dataclass(frozen=True)
class Cards:
    """The driver, the newest CUDA it can run, and its cards."""

    driver: str
    cuda: tuple[int, int]
    cards: tuple[Card, ...]
    pairs: tuple[Pair, ...]


def library() -> Any:
    """Return NVIDIA's Python binding, which loads without a driver too."""
    import pynvml

    return pynvml


def read_cards(nvml: Any) -> Cards | str:
    """Return what the driver says through `nvml` (see `library`), or why it says nothing."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return str(error)
    try:
        return _read(nvml)
    except nvml.NVMLError as error:
        return str(error)
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Any) -> Cards:
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    cuda = nvml.nvmlSystemGetCudaDriverVersion()  # 13020 is 13.2
    return Cards(
        driver=nvml.nvmlSystemGetDriverVersion(),
        cuda=(cuda // 1000, cuda % 1000 // 10),
        cards=tuple(_card(nvml, index, handle) for index, handle in enumerate(handles)),
        pairs=tuple(_pair(nvml, handles, one, two) for one, two in itertools.combinations(range(len(handles)), 2)),
    )


def _card(nvml: Any, index: int, handle: Any) -> Card:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    modes = (nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS, nvml.NVML_COMPUTEMODE_PROHIBITED)
    mig = _if_supported(nvml, nvml.nvmlDeviceGetMigMode, handle)
    return Card(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        memory=memory.total,
        used=memory.used,
        capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        links=sum(_link_is_up(nvml, handle, link) for link in range(nvml.NVML_NVLINK_MAX_LINKS)),
        users=len(_if_supported(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []),
        mig=mig is not None and mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
        shareable=_if_supported(nvml, nvml.nvmlDeviceGetComputeMode, handle) not in modes,
    )


def _link_is_up(nvml: Any, handle: Any, link: int) -> bool:
    return bool(_if_supported(nvml, nvml.nvmlDeviceGetNvLinkState, handle, link) == nvml.NVML_FEATURE_ENABLED)


def _pair(nvml: Any, handles: list[Any], one: int, two: int) -> Pair:
    def can(way: int) -> bool:
        status = _if_supported(nvml, nvml.nvmlDeviceGetP2PStatus, handles[one], handles[two], way)
        return bool(status == nvml.NVML_P2P_STATUS_OK)

    # not NVML_P2P_CAPS_INDEX_READ: nvidia-ml-py 13.615 defines it as a tuple, by a stray comma
    return Pair((one, two), peer=can(nvml.NVML_P2P_CAPS_INDEX_WRITE), nvlink=can(nvml.NVML_P2P_CAPS_INDEX_NVLINK))


def _if_supported(nvml: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Ask what not every card can answer; None where this one cannot."""
    try:
        return function(*arguments)
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT):
            return None
        raise
