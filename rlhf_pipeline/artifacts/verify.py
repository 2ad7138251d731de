"""Verify a whole store: every object against its manifest, every parent and every ref against the objects.

Left out: tmp/ and runs/. What a killed process leaves there is no damage; the next stage or gc clears it.
"""

from __future__ import annotations

from collections.abc import Iterable

from rlhf_pipeline.artifacts.describe import adapter_base
from rlhf_pipeline.artifacts.integrity import object_problems
from rlhf_pipeline.artifacts.manifest import OBJECT_ID
from rlhf_pipeline.artifacts.store import Store


def verify(store: Store, ids: Iterable[str] | None = None) -> list[str]:
    """Return what is wrong in the store, a line each; with `ids`, in those objects only. Reads every byte."""
    if ids is not None:
        return [problem for name in ids for problem in _verify_object(store, name)]
    found = sorted(path.name for path in store.objects.glob("*"))
    return [problem for name in found for problem in _verify_object(store, name)] + _verify_refs(store)


def _verify_object(store: Store, name: str) -> list[str]:
    folder = store.objects / name
    if not OBJECT_ID.fullmatch(name):
        return [f"{folder} is no object"]
    if problems := object_problems(folder):
        return problems
    manifest = store.manifest(name)
    problems = [
        f"{folder}: its parent {role} {parent} is not in the store"
        for role, parent in manifest.parents.items()
        if not store.has(parent)
    ]
    base = adapter_base(folder)
    if base is not None and OBJECT_ID.fullmatch(base) and not store.has(base):
        problems.append(f"{folder}: the base of this adapter, {base}, is not in the store")
    return problems


def _verify_refs(store: Store) -> list[str]:
    return [
        f"{store.root}/refs/{run}/{role} names {name}, which is not in the store"
        for run, roles in store.refs().items()
        for role, name in roles.items()
        if not store.has(name)
    ]
