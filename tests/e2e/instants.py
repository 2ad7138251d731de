"""Instants at which a test kills a command: the n-th call of a function, so that a kill hits the same work every time.

Arming an instant wraps that function in this process; nothing else of the product changes.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 2.0


@dataclass(frozen=True)
class Instant:
    """A call of `function` ("module:Class.name") on `rank`, counted from 1: before it, or `after` it."""

    function: str
    call: int
    after: bool = False
    file: str = ""
    """Count only calls with a file of this name among the arguments."""
    torn: bool = False
    """Cut that file in half, `after` the call."""
    awaited: str = ""
    """Before dying, wait `PATIENCE` seconds at most for a file of this name in the folder of the second argument."""
    rank: int = 0
    signal: int = signal.SIGKILL
    launcher: bool = False
    """Send the signal to the process that started this one, and go on."""


def arm(instant: Instant) -> None:
    """Let this process get a signal, SIGKILL unless said otherwise, at `instant`, if it has that rank."""
    if int(os.environ.get("RANK", "0")) != instant.rank:
        return
    module, _, path = instant.function.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, name, _counted(getattr(owner, name), instant))


def _counted(function: Callable[..., Any], instant: Instant) -> Callable[..., Any]:
    calls = itertools.count(1)

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        counts = not instant.file or instant.file in _names(args)
        last = counts and next(calls) == instant.call
        if last and not instant.after:
            _die(instant, args)
        result = function(*args, **kwargs)
        if last:
            _die(instant, args)
        return result

    return counted


def _names(args: tuple[Any, ...]) -> dict[str, Path]:
    """The paths among `args`, by the name of the file."""
    return {Path(arg).name: Path(arg) for arg in args if isinstance(arg, str | os.PathLike)}


def _die(instant: Instant, args: tuple[Any, ...]) -> None:
    if instant.torn:
        file = _names(args)[instant.file]
        os.truncate(file, file.stat().st_size // 2)
    end = time.monotonic() + PATIENCE
    while instant.awaited and not Path(args[1], instant.awaited).exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(os.getppid() if instant.launcher else os.getpid(), instant.signal)
