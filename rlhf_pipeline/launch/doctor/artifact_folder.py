"""Whether a folder can be an artifact store: it can be written, renamed in, locked, and has room and speed.

Everything is tried in a scratch folder that is removed again. Left out: whether other machines see the same folder
(`nodes`), and how much space a stage needs; the stage works that out itself.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rlhf_pipeline.artifacts.locks import held, is_free
from rlhf_pipeline.artifacts.storage import nearest_folder, readable_size
from rlhf_pipeline.errors import StorageError
from rlhf_pipeline.launch.doctor.findings import Finding, failed, passed, refused, warned

CHECK = "artifacts"
MEANT_FOR_ONE_DISK = ("objects", "tmp", "refs", "runs", "locks")
PROBE = 64 * 10**6
LITTLE, TOO_LITTLE = 10 * 10**9, 10**9
SLOW = 50e6
"""Bytes a second under which a checkpoint of a 7 B model takes more than half an hour."""
ANOTHER = "name another folder with --artifacts"


def check_artifacts(root: Path) -> list[Finding]:
    """Try out the folder `root`, or the nearest one above it that is there."""
    try:
        existing = nearest_folder(root)
    except StorageError as error:
        return [refused(CHECK, error)]
    free = shutil.disk_usage(existing).free
    findings = [_space(root, free)]
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".rlhf-doctor-", dir=existing))
    except OSError as error:
        seen = f"{root}: {os.strerror(error.errno or 0)}"
        return [failed(CHECK, seen, f"make it writable for this user, or {ANOTHER}"), *findings]
    try:
        return [*_behaviour(root, scratch), *findings, *_speed(root, scratch, free)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _space(root: Path, free: int) -> Finding:
    seen = f"{root}: {readable_size(free)} free"
    fix = f"free some (`rlhf artifacts gc --yes`), or {ANOTHER}"
    if free < TOO_LITTLE:
        return failed("disk space", seen, fix)
    return warned("disk space", seen, fix) if free < LITTLE else passed("disk space", seen)


def _behaviour(root: Path, scratch: Path) -> Iterator[Finding]:
    """What the store stands on: a rename that replaces, and locks that exclude."""
    problems = [
        *([f"its folders lie on several disks ({apart})"] if (apart := _on_other_disks(root)) else []),
        *([] if renames(scratch) else ["a file cannot be renamed over another"]),
        *([] if locks(scratch) else ["two programs can hold one lock"]),
    ]
    for problem in problems:
        yield failed(CHECK, f"{root}: {problem}", f"use a disk with POSIX renames and flock; {ANOTHER}")
    if not problems:
        yield passed(CHECK, f"{root.absolute()}: writable, renames replace at once, locks exclude")


def _on_other_disks(root: Path) -> str:
    there = [root / name for name in MEANT_FOR_ONE_DISK if (root / name).exists()]
    return ", ".join(path.name for path in there if path.stat().st_dev != root.stat().st_dev)


def renames(folder: Path) -> bool:
    """Whether a file can take the place of another one, and a folder get a new name, in `folder`."""
    old, new = folder / "old", folder / "new"
    old.write_text("old")
    new.write_text("new")
    (folder / "aside").mkdir()
    try:
        new.replace(old)
        (folder / "aside").rename(folder / "in-place")
    except OSError:
        return False
    return old.read_text() == "new" and not new.exists()


def locks(folder: Path) -> bool:
    """Whether a lock in `folder` that is held cannot be had a second time."""
    path = folder / "lock"
    try:
        with held(path):
            return not is_free(path)
    except OSError:
        return False


def _speed(root: Path, scratch: Path, free: int) -> Iterator[Finding]:
    if free < 10 * PROBE:
        return
    block, file = secrets.token_bytes(PROBE // 64), scratch / "speed"
    start = time.perf_counter()
    with file.open("wb") as stream:
        for _ in range(64):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    rate = PROBE / (time.perf_counter() - start)
    seen = f"{root}: {readable_size(rate)}/s written and flushed"
    if rate < SLOW:
        yield warned("disk speed", seen, f"checkpoints will take long: save fewer (save_steps), or {ANOTHER}")
    else:
        yield passed("disk speed", seen)
