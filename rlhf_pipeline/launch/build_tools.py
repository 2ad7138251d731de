"""What DeepSpeed compiles with: on a CPU it builds an operation for shared memory when processes first meet.

Left out: CUDA operations; DeepSpeed itself says which of them it can build (`ds_report`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

OPERATION = "deepspeed_shm_comm"


def build_problem(environ: Mapping[str, str]) -> str | None:
    """Say what DeepSpeed on a CPU lacks to build its operation, with the remedy; None where it lacks nothing.

    ninja is asked for at every start (torch 2.13), the compiler only where the operation was not built before.
    """
    path = environ.get("PATH", "")
    if shutil.which("ninja", path=path) is None:
        own = Path(sys.executable).parent
        if (own / "ninja").is_file():
            return f"ninja is not on PATH; type `export PATH={own}:$PATH`"
        return "ninja is not installed; type `pip install ninja`"
    compiler = environ.get("CXX", "c++")
    if shutil.which(compiler, path=path) is None and not _built(environ):
        return f"there is no C++ compiler (`{compiler}`); install one (Debian, Ubuntu: apt install g++) or set CXX"
    return None


def _built(environ: Mapping[str, str]) -> bool:
    """Whether the operation lies in the cache of torch's extensions, for this or another Python."""
    cache = environ.get("TORCH_EXTENSIONS_DIR") or os.path.expanduser("~/.cache/torch_extensions")
    return any(Path(cache).glob(f"**/{OPERATION}/{OPERATION}.so"))
