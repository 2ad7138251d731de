"""Collect garbage: objects that no ref reaches and no running stage reads, and folders that dead processes left.

Kept are the objects of all refs, what running stages read or have just published, and the ancestors of both.
Left out: runs/. Logs and metrics of finished runs are small, and are the user's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlhf_pipeline.artifacts.describe import adapter_base
from rlhf_pipeline.artifacts.locks import held, live_reads, remove_stale, stale_folders
from rlhf_pipeline.artifacts.manifest import OBJECT_ID
from rlhf_pipeline.artifacts.storage import storage_errors
from rlhf_pipeline.artifacts.store import Store


@dataclass(frozen=True)
class Garbage:
    """What may go: ids of objects, stale folders, and the bytes that all of it takes."""

    objects: list[str]
    folders: list[Path]
    size: int


def collect(store: Store, *, delete: bool) -> Garbage:
    """Return what nothing needs, deleted if `delete`. ArtifactError where a kept object is damaged, StorageError.

    Nothing is published and no stage starts while it is decided; an object leaves objects/ by one rename.
    """
    with storage_errors(f"{store.root}: cannot collect garbage"):
        with held(store.guard):
            garbage = _garbage(store)
            for name in garbage.objects if delete else []:
                store.tmp.mkdir(parents=True, exist_ok=True)
                (store.objects / name).rename(store.tmp / f"garbage-{name}")
        if delete:
            remove_stale(store.tmp)
    return garbage


def _garbage(store: Store) -> Garbage:
    refs = {name for roles in store.refs().values() for name in roles.values()}
    keep = with_ancestors(store, refs | live_reads(store.locks))
    objects = [name for name in store.ids() if name not in keep]
    folders = stale_folders(store.tmp)
    size = sum(_size(folder) for folder in [*(store.objects / name for name in objects), *folders])
    return Garbage(objects, folders, size)


def with_ancestors(store: Store, ids: Iterable[str]) -> set[str]:
    """Return `ids` and all that they were made from, as far as it is in the store."""
    waiting, found = set(ids), set[str]()
    while waiting:
        name = waiting.pop()
        if name in found or not OBJECT_ID.fullmatch(name) or not store.has(name):
            continue
        found.add(name)
        waiting.update(store.manifest(name).parents.values())
        base = adapter_base(store.path(name))
        if base is not None and OBJECT_ID.fullmatch(base):
            waiting.add(base)
    return found


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
