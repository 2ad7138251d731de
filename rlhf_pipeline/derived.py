"""Files that a command derives from others: written whole or not at all, and not derived twice from the same inputs.

`<file>.inputs.json` beside a derived file holds what it was made from and the file's own hash.
Left out: models, which are artifacts (`artifacts`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .artifacts.storage import storage_errors, write_atomic

INPUTS_SUFFIX = ".inputs.json"


def is_answered(path: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether `path` was derived from just these inputs and has not been touched since."""
    beside = _beside(path)
    if not path.is_file() or not beside.is_file():
        return False
    return bool(json.loads(beside.read_text(encoding="utf-8")) == {"inputs": _plain(inputs), "hash": file_hash(path)})


def write_derived(path: Path, text: str, inputs: Mapping[str, Any]) -> None:
    """Write `text` to `path`, and beside it what it was made from; raises `StorageError` where the disk refuses."""
    with storage_errors(f"{path}: cannot write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
        write_atomic(_beside(path), json.dumps({"inputs": _plain(inputs), "hash": file_hash(path)}, indent=1) + "\n")


def file_hash(path: Path) -> str:
    """Hash the bytes of a file: "sha256:" and 64 hex digits."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _beside(path: Path) -> Path:
    return path.with_name(path.name + INPUTS_SUFFIX)


def _plain(inputs: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(inputs), sort_keys=True))
