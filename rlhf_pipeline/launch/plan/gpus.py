"""What a GPU has and how quick it is, from its maker's data sheet; every rate can be scaled by a setting.

Left out: other makers' cards; `memory_gib`, `mfu` and `network_gb_s` describe them well enough.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """Memory in GiB as the driver shows it; dense bf16 FLOP/s; bytes/s of its memory, of NVLink and of the network.

    NVLink and network are those of one GPU in one direction, in the makers' own 8-GPU machines.
    """

    memory_gib: float
    flops: float
    memory_bandwidth: float
    nvlink: float
    network: float


GPUS = {
    "a100-40": Gpu(39.5, 312e12, 1.555e12, 300e9, 25e9),
    "a100-80": Gpu(79.2, 312e12, 2.039e12, 300e9, 25e9),
    "h100": Gpu(79.2, 989e12, 3.35e12, 450e9, 50e9),
    "h200": Gpu(139.8, 989e12, 4.8e12, 450e9, 50e9),
}
"""NVIDIA's data sheets of A100, H100 SXM and H200 SXM; network: one port of 200 or 400 Gbit/s a GPU (DGX)."""

HOST_BANDWIDTH = 25e9
"""Bytes/s between a GPU and the host (PCIe 4 x16), and its share of the host's memory: what offload runs at."""
