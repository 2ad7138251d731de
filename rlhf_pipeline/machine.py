"""What this machine is good at, and the settings that follow from it.

Left out: GPUs, where transformers' own choices are good ones. The figures are measured: `benchmarks/README.md`.
"""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc
_TOP_PAD = 64 * 2**20
_NEVER = 2**31 - 1

EAGER_TOKENS = 512
"""Up to here, plain matrix products beat torch's fused attention on a CPU, by a fifth of a training step."""


def keep_freed_memory() -> None:
    """Let malloc keep what is freed, where there is glibc: a CPU tensor of fresh pages costs more than its numbers.

    For a process that trains on the CPU; the memory comes back to the system when it ends.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another libc
        return
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD)):
        mallopt(option, value)


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself, several times as fast as float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "sve_bf16"))


def bf16_problem() -> str | None:
    """Say why the GPU could only imitate bf16, at a fraction of its speed; None where it has bf16, or there is none."""
    if not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False):
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (compute capability {major}.{minor}) has no bf16; that came with 8.0"


def cpu_attention(tokens: int) -> dict[str, str]:
    """The attention that is quickest on a CPU for rows of up to `tokens`, as an option of `from_pretrained`."""
    return {"attn_implementation": "eager"} if tokens <= EAGER_TOKENS else {}
