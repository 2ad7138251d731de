"""Locks between processes, by flock: the kernel frees them however a process ends, so none is ever stale.

    locks/<run>.<stage>    held while a stage runs; says who holds it and which objects it reads
    locks/.guard           shared while objects and refs are put in place, exclusive while garbage is collected
    locks/.refs.<run>      held while the refs of a run move
    tmp/<name>.lock        held while the folder tmp/<name> is being filled

Left out: waiting for a busy stage. The second command is told who holds it, and ends.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rlhf_pipeline.artifacts.manifest import HUB_PIN, NAME
from rlhf_pipeline.errors import ArtifactError

_held: set[int] = set()  # descriptors of the locks of this process


def _forget_in_child() -> None:
    """Close the locks in a forked child, so that a data-loading worker cannot outlive its parent's lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


@functools.cache
def _register_fork_hook() -> None:
    os.register_at_fork(after_in_child=_forget_in_child)


def _open_locked(path: Path, operation: int) -> int:
    """Return a locked descriptor of `path`, created if need be; BlockingIOError if busy and not to wait."""
    _register_fork_hook()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        _close(descriptor)
        raise
    return descriptor


def _close(descriptor: int) -> None:
    if descriptor in _held:
        _held.remove(descriptor)
        os.close(descriptor)


@contextmanager
def held(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[int]:
    """Hold the lock `path` inside the block; yield its descriptor. BlockingIOError if busy and `wait` is False."""
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    descriptor = _open_locked(path, operation)
    try:
        yield descriptor
    finally:
        _close(descriptor)


def is_free(path: Path) -> bool:
    """Tell whether no process holds the lock `path` at this instant."""
    try:
        with held(path, shared=True, wait=False):
            return True
    except BlockingIOError:
        return False


class StageLock:
    """One stage of one run, held by this process; names the objects it reads so that gc leaves them alone."""

    def __init__(self, descriptor: int, guard: Path, objects: Path) -> None:
        self._descriptor, self._guard, self._objects = descriptor, guard, objects
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        self._reads: set[str] = set()
        self._write()

    def reads(self, ids: Iterable[str]) -> None:
        """Protect the objects `ids` (and their ancestors) from gc while the lock is held; hub: pins are skipped.

        Raises ArtifactError where one is not in the store.
        """
        wanted = [name for name in ids if not HUB_PIN.fullmatch(name)]
        with held(self._guard, shared=True):
            for name in wanted:
                if not (self._objects / name / NAME).is_file():
                    raise ArtifactError(f"{self._objects / name} is gone; `rlhf artifacts list` shows what is there")
            self.protect(wanted)

    def protect(self, ids: Iterable[str]) -> None:
        """Do what `reads` does for a caller that already holds the guard and knows that the objects are safe."""
        self._reads.update(ids)
        self._write()

    def _write(self) -> None:
        text = json.dumps({**self._holder, "reads": sorted(self._reads)}).encode()
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))


@contextmanager
def stage_lock(path: Path, what: str, guard: Path, objects: Path) -> Iterator[StageLock]:
    """Hold the lock of the stage `what` inside the block; ArtifactError naming the holder where it is busy."""
    with held(guard, shared=True):  # gc probes the locks under the exclusive guard; a probe must not look busy
        try:
            descriptor = _open_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"{what} is {_who(path)}") from None
        lock = StageLock(descriptor, guard, objects)
    try:
        yield lock
    finally:
        _close(descriptor)


def _who(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
    except ValueError:  # read between its two writes
        return "already running; wait until it ends, or use another --run"
    return (
        f"already running as process {holder['pid']} on {holder['host']} since {holder['since']}; "
        "wait until it ends, or use another --run"
    )


def live_reads(locks: Path) -> set[str]:
    """Return the objects that running stages read. Call under the exclusive guard."""
    ids: set[str] = set()
    for path in sorted(locks.glob("[!.]*")):
        if is_free(path):
            continue
        ids.update(json.loads(path.read_text())["reads"])  # never torn: it is written under the shared guard
    return ids


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a fresh folder under `parent`, removed afterwards unless renamed; a killed process leaves it stale."""
    while True:
        folder = parent / secrets.token_hex(8)
        lock = folder.with_suffix(".lock")
        descriptor = _open_locked(lock, fcntl.LOCK_EX)
        if _is_at(descriptor, lock):  # else another process took it for stale before it was locked
            break
        _close(descriptor)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        _close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Tell whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def stale_folders(parent: Path) -> list[Path]:
    """Return the folders under `parent` whose process has died."""
    folders = sorted(path for path in parent.glob("*") if path.suffix != ".lock")
    return [path for path in folders if not path.with_suffix(".lock").exists() or is_free(path.with_suffix(".lock"))]


def remove_stale(parent: Path) -> None:
    """Delete what dead processes left under `parent`."""
    for folder in stale_folders(parent):
        shutil.rmtree(folder, ignore_errors=True)
    for lock in parent.glob("*.lock"):
        try:
            with held(lock, wait=False):  # unlinked while held: whoever waits for it sees that and takes another
                if not lock.with_suffix("").exists():
                    lock.unlink(missing_ok=True)
        except BlockingIOError:
            continue
