"""Verify finds every kind of damage, and names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.integrity import object_problems
from rlhf_pipeline.artifacts.manifest import digest
from rlhf_pipeline.artifacts.verify import verify
from tests.artifacts.conftest import Publish


def test_any_flipped_byte_is_found(store: Store, publish: Publish) -> None:
    """Flip each byte of each file of an object, the manifest included, one at a time."""
    folder = store.path(publish())
    for path in folder.iterdir():
        path.chmod(0o644)
        whole = path.read_bytes()
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            assert len(object_problems(folder)) == 1, (path.name, position)
        path.write_bytes(whole)
    assert verify(store) == []


def test_all_damage_is_named(store: Store, publish: Publish) -> None:
    folder = store.path(publish())
    (folder / "model.safetensors").chmod(0o644)
    (folder / "model.safetensors").write_text("WEIGHTS")
    (folder / "config.json").unlink()
    (folder / "sub").mkdir()
    (folder / "sub/extra").touch()
    (store.objects / "sft-new").mkdir()
    assert verify(store) == [
        f"{folder / 'config.json'} is missing",
        f"{folder / 'sub/extra'} does not belong to the object",
        f"{folder / 'model.safetensors'} is damaged: its SHA-256 is not the one in the manifest",
        f"{store.objects / 'sft-new'} is no object",
    ]


def test_sizes_alone_are_checked_without_hashes(store: Store, publish: Publish) -> None:
    folder = store.path(publish())
    (folder / "model.safetensors").chmod(0o644)
    (folder / "model.safetensors").write_text("WEIGHTS")
    assert object_problems(folder, hashes=False) == []
    (folder / "model.safetensors").write_text("longer than before")
    assert len(object_problems(folder, hashes=False)) == 1


def test_a_resealed_manifest_no_longer_has_its_id(store: Store, publish: Publish) -> None:
    path = store.path(publish()) / "manifest.json"
    fields = json.loads(path.read_text())
    del fields["seal"]
    fields["input_key"] = "another question"
    path.chmod(0o644)
    path.write_text(json.dumps({**fields, "seal": digest(fields)}))
    assert "its content makes it sft-" in verify(store)[0]


def test_lost_parents_and_refs(store: Store, publish: Publish) -> None:
    base = publish("base")
    sft = publish("sft", base=base)
    store.set_refs("default", {"base": base, "sft": sft})
    store.path(base).rename(store.root / "lost")
    assert verify(store) == [
        f"{store.objects / sft}: its parent base {base} is not in the store",
        f"{store.root}/refs/default/base names {base}, which is not in the store",
    ]
    assert verify(store, [sft]) == verify(store)[:1]


@pytest.mark.parametrize(("base", "problems"), [("base-000000000000", 1), ("owner/name", 0)])
def test_the_base_of_an_adapter(store: Store, base: str, problems: int) -> None:
    with store.staging() as staged:
        (staged / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        store.publish(staged, kind="sft", parents={}, input_key="k", config={}, data={}, metrics={})
    assert [problem.partition(": ")[2] for problem in verify(store)] == [
        f"the base of this adapter, {base}, is not in the store"
    ] * problems


def test_what_a_killed_process_left_is_no_damage(store: Store, publish: Publish, tmp_path: Path) -> None:
    store.set_refs("default", {"sft": publish()})
    (store.tmp / "0123").mkdir()
    (store.root / "refs/default/.sft.tmp").write_text("sft-")
    assert verify(store) == []
