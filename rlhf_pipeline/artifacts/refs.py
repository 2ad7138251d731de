"""Names for objects: refs/<run>/<role> is one line, an object id. Several roles of a run move together.

A move writes refs/<run>/.pending first (all roles, atomically), then each ref, then removes .pending. Readers believe
.pending before the refs, and the next writer completes it: killed at any instant, all refs have moved or none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from rlhf_pipeline.artifacts.locks import held
from rlhf_pipeline.artifacts.storage import sync, write_atomic
from rlhf_pipeline.errors import ArtifactError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PENDING = ".pending"


def checked_name(what: str, name: str) -> str:
    """Return `name` if it can be a folder of its own; ArtifactError saying `what` it was meant to be."""
    if not _NAME.fullmatch(name):
        raise ArtifactError(f"{what} `{name}`: use letters, digits, dot, dash and underscore, and begin with no dot")
    return name


class Refs:
    """The refs below one folder; `locks` is the folder of the lock files."""

    def __init__(self, folder: Path, locks: Path) -> None:
        self._folder, self._locks = folder, locks

    def runs(self) -> list[str]:
        """Return the runs that have a ref."""
        return sorted(path.name for path in self._folder.glob("[!.]*") if path.is_dir())

    def of(self, run: str) -> dict[str, str]:
        """Return {role: id} of one run, all as of one instant."""
        folder = self._folder / checked_name("run", run)
        before, after = _read(folder), _read(folder)
        while before != after:  # a move went by between the two
            before, after = after, _read(folder)
        return after

    def move(self, run: str, ids: Mapping[str, str]) -> None:
        """Point the roles of `ids` to their objects, all of them or none."""
        folder = self._folder / checked_name("run", run)
        for role in ids:
            checked_name("role", role)
        with held(self._locks / f".refs.{run}"):
            folder.mkdir(parents=True, exist_ok=True)
            _complete(folder)
            write_atomic(folder / _PENDING, json.dumps(dict(ids)))
            _complete(folder)


def _pending(folder: Path) -> dict[str, str]:
    try:
        ids: dict[str, str] = json.loads((folder / _PENDING).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return ids


def _read(folder: Path) -> dict[str, str]:
    pending = _pending(folder)  # read first: its refs are in place before it goes
    found = (path for path in sorted(folder.glob("[!.]*")) if path.is_file())
    return {path.name: path.read_text(encoding="utf-8").strip() for path in found} | pending


def _complete(folder: Path) -> None:
    """Carry out a move that .pending announces."""
    ids = _pending(folder)
    for role, name in ids.items():
        write_atomic(folder / role, name + "\n")
    if ids:
        (folder / _PENDING).unlink()
        sync(folder)
