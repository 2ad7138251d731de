"""Child processes that work on a store, for tests that kill them, race them, or keep them waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREAMBLE = """
import os, signal, sys
from pathlib import Path
from rlhf_pipeline.artifacts import Store

store = Store(sys.argv[1])

def publish(kind, text, **parents):
    with store.staging() as staged:
        (staged / "model.safetensors").write_text(text)
        (staged / "sub").mkdir()
        (staged / "sub/config.json").write_text("{}")
        return store.publish(
            staged, kind=kind, parents=parents, input_key=text, config={}, data={}, metrics={}
        )
"""


@contextmanager
def child(store: Path, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start Python on `script`, which finds `store` and `publish` in place; kill it if it outlives the block."""
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), str(store), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """Wait for the next line that the child prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of the child, which must succeed, and return the rest of what it printed."""
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    return printed
