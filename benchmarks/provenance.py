"""Where and when numbers were taken. Left out: anything that names a person or a host."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from rlhf_pipeline.artifacts.describe import code_revision


def describe_machine() -> dict[str, Any]:
    """Describe processor, memory and how busy the machine is now."""
    facts = dict(line.split(":", 1) for line in _lines("/proc/cpuinfo") if ":" in line)
    flags = next((value.split() for name, value in facts.items() if name.strip() == "flags"), [])
    model = next((value.strip() for name, value in facts.items() if name.strip() == "model name"), platform.machine())
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags],
        "matrix_gflops": {
            name: matrix_rate(dtype) for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16))
        },
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def matrix_rate(dtype: torch.dtype, size: int = 1024, seconds: float = 0.5) -> float:
    """Measure what the processor reaches in a matrix product, in GFLOP/s: the best of as many as fit in `seconds`."""
    one, other = torch.rand(2, size, size).to(dtype)
    best, began = float("inf"), perf_counter()
    while perf_counter() - began < seconds:
        start = perf_counter()
        torch.mm(one, other)
        best = min(best, perf_counter() - start)
    return round(2 * size**3 / best / 1e9)


def describe_moment() -> dict[str, str]:
    """Name the time, and the revision of our package."""
    return {"taken": datetime.now(UTC).isoformat(timespec="seconds"), "revision": code_revision()}


def _lines(file: str) -> list[str]:
    return Path(file).read_text(encoding="utf-8").splitlines()
