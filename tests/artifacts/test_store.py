"""The store within one process: publish, find, open, resolve, refs, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from rlhf_pipeline import cli
from rlhf_pipeline.artifacts import Store, locks, storage
from rlhf_pipeline.artifacts.verify import verify
from rlhf_pipeline.errors import ArtifactError, StorageError
from tests.artifacts.conftest import Publish

ABSENT = "sft-000000000000"


def test_opening_and_asking_writes_nothing(store: Store) -> None:
    assert store.ids() == []
    assert store.refs() == {}
    assert store.find("key") == []
    assert store.ref("default", "sft") is None
    assert store.run_dir("default", "sft") == store.root / "runs/default/sft"
    store.require_space(1, "nothing")
    assert not store.root.exists()


def test_publish(store: Store, publish: Publish) -> None:
    base = publish("base", "b")
    name = publish("sft", "s", "question", base=base)
    manifest = store.manifest(name)
    assert re.fullmatch(r"sft-[0-9a-f]{12}", name)
    assert name == manifest.content_id()
    assert manifest.parents == {"base": base}
    assert manifest.data == {"rows": "sha256:00"}
    assert sorted(manifest.files) == ["config.json", "model.safetensors"]
    assert store.ids() == sorted([base, name])
    assert store.open(name) == store.path(name) == store.objects / name
    assert store.find("question") == [name]
    assert list(store.tmp.iterdir()) == []
    assert verify(store) == []


def test_publishing_the_same_again_changes_nothing(store: Store, publish: Publish) -> None:
    name = publish()
    before = (store.path(name) / "manifest.json").stat()
    assert publish() == name
    assert (store.path(name) / "manifest.json").stat() == before


def test_publishing_the_same_again_mends_a_damaged_object(store: Store, publish: Publish) -> None:
    name = publish()
    path = store.path(name) / "model.safetensors"
    path.chmod(0o644)
    path.write_text("damaged")
    assert publish() == name
    assert path.read_text() == "weights"
    assert verify(store) == []


def test_objects_are_read_only(store: Store, publish: Publish) -> None:
    for path in store.path(publish()).iterdir():
        assert path.stat().st_mode & 0o222 == 0


def test_nothing_machine_specific_is_published(store: Store, tmp_path: Path) -> None:
    with store.staging() as staged:
        (staged / "config.json").write_text(json.dumps({"_name_or_path": str(tmp_path / "model")}))
        name = store.publish(
            staged,
            kind="sft",
            parents={},
            input_key="key",
            config={"data": str(tmp_path / "rows.jsonl"), "output_dir": tmp_path},
            data={"rows": "sha256:00"},
            metrics={"loss": float("nan")},
            extra={"inputs": {"settings": {"reward": [str(tmp_path / "reward.py")]}}},
        )
    for path in store.path(name).iterdir():
        assert str(tmp_path) not in path.read_text()
        assert os.uname().nodename not in path.read_text()
    assert store.manifest(name).config == {"data": "rows.jsonl", "output_dir": tmp_path.name}


def test_find_is_by_key_oldest_first_and_leaves_out_what_is_cut_short(store: Store, publish: Publish) -> None:
    names = {publish(kind, "text", "question") for kind in ("policy", "critic")}
    publish("policy", "other", "another question")
    assert set(store.find("question")) == names
    short = names.pop()
    os.truncate(store.path(short) / "model.safetensors", 1)
    assert store.find("question") == list(names)


@pytest.mark.parametrize("kind", ["", "SFT", "a/b", "a-b", "../x"])
def test_bad_kinds_are_refused(store: Store, publish: Publish, kind: str) -> None:
    with pytest.raises(ArtifactError, match="use lower-case letters and digits"):
        publish(kind)
    assert store.ids() == []


@pytest.mark.parametrize("parent", [ABSENT, "hub:owner/name", "/home/me/model", "../x"])
def test_parents_must_be_in_the_store_or_pinned(store: Store, publish: Publish, parent: str) -> None:
    with pytest.raises(ArtifactError, match="its parent base"):
        publish(base=parent)
    assert store.ids() == []
    assert list(store.tmp.iterdir()) == []


def test_a_hub_pin_is_a_parent_and_a_ref(store: Store, publish: Publish) -> None:
    pin = "hub:owner/name@0123abc"
    name = publish(base=pin)
    store.set_refs("default", {"base": pin, "sft": name})
    assert store.resolve("base") == pin
    assert store.ref("default", "base") == pin
    assert verify(store) == []


# -- refs and names


def test_resolve(store: Store, publish: Publish) -> None:
    name = publish()
    store.set_refs("mine", {"sft": name})
    assert store.resolve(name) == name
    assert store.resolve(name, run="") == name
    assert store.resolve(name[:9]) == name
    assert store.resolve(name.removeprefix("sft-")[:4]) == name
    assert store.resolve("sft", "mine") == name
    assert store.resolve("mine/sft") == name
    assert store.refs() == {"mine": {"sft": name}}


def test_a_role_never_means_another_runs_object(store: Store, publish: Publish) -> None:
    store.set_refs("other", {"sft": publish()})
    with pytest.raises(
        ArtifactError, match=r"run `default` of .* has no `sft` \(it has none\); make it with `rlhf sft`"
    ):
        store.resolve("sft")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("policy", r"has no `policy` \(it has base, sft\); make it with `rlhf ppo`"),
        ("polici", r"has no `polici` \(it has base, sft\); see `rlhf artifacts list`"),
        ("other/sft", r"run `other` of .* has no `sft` \(it has none\)"),
        ("a/b/c", "`a/b/c` is neither a folder nor an artifact of .*; check the path"),
        ("/home/me/llama", "is neither a folder nor an artifact"),
        ("./llama", "is neither a folder nor an artifact"),
        ("abcdef", "has no object `abcdef`; `rlhf artifacts list`"),
        (ABSENT, f"has no object `{ABSENT}`"),
        ("", "has no ``"),
    ],
)
def test_resolve_says_what_there_is_and_what_to_type(store: Store, publish: Publish, text: str, message: str) -> None:
    store.set_refs("default", {"base": publish("base"), "sft": publish()})
    with pytest.raises(ArtifactError, match=message):
        store.resolve(text)


def test_an_ambiguous_beginning_lists_what_it_begins(store: Store) -> None:
    for tail in ("00000000", "11111111"):
        (store.objects / f"sft-abcd{tail}").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="`abcd` begins 2 ids .sft-abcd00000000, sft-abcd11111111.; type more"):
        store.resolve("abcd")


def test_a_ref_to_a_lost_object(store: Store, publish: Publish) -> None:
    name = publish()
    store.set_refs("default", {"sft": name})
    store.path(name).rename(store.root / "lost")
    assert store.ref("default", "sft") is None
    with pytest.raises(ArtifactError, match=f"refs/default/sft names {name}, which is gone; type `rlhf sft`"):
        store.resolve("sft")


def test_refs_only_to_what_exists(store: Store, publish: Publish) -> None:
    store.set_refs("default", {"policy": publish("policy")})
    before = store.refs()
    with pytest.raises(ArtifactError, match=f"has no object `{ABSENT}`"):
        store.set_refs("default", {"policy": publish("policy", "new"), "critic": ABSENT})
    assert store.refs() == before


# -- damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: os.truncate(folder / "model.safetensors", 3), "model.safetensors has 3 bytes, .* says 7"),
        (lambda folder: (folder / "model.safetensors").write_text("WEIGHTS"), "model.safetensors is damaged"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "extra.json").touch(), "extra.json does not belong"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json does not exist"),
        (lambda folder: os.truncate(folder / "manifest.json", 9), "manifest.json is damaged"),
    ],
)
def test_open_refuses_a_damaged_object(store: Store, publish: Publish, damage, message: str) -> None:
    name = publish()
    folder = store.path(name)
    for path in folder.iterdir():
        path.chmod(0o644)
    damage(folder)
    with pytest.raises(ArtifactError, match=message) as caught:
        store.open(name)
    assert f"`rm -rf {folder}`" in str(caught.value) or "rlhf artifacts list" in str(caught.value)


def test_open_refuses_one_object_under_the_name_of_another(store: Store, publish: Publish) -> None:
    store.path(publish()).rename(store.objects / ABSENT)
    with pytest.raises(ArtifactError, match=f"{ABSENT}: its content makes it sft-"):
        store.open(ABSENT)


# -- disks that refuse


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "file cannot be an artifact store: .*/file is no folder; name another one with --artifacts"),
        ("file/store", "file/store cannot be an artifact store: .*/file is no folder; name another"),
        ("link", "link cannot be an artifact store: .*/link is no folder"),
        ("n" * 300, "cannot be an artifact store: File name too long .*; give a shorter name"),
    ],
)
def test_where_no_folder_can_be(
    tmp_path: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(StorageError, match=message):
        Store(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["artifacts", "list", "--artifacts", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_link_to_a_folder_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert Store(tmp_path / "link").ids() == []


def test_a_full_disk_while_staging(store: Store, publish: Publish) -> None:
    name = publish()
    with pytest.raises(StorageError, match=r"cannot write: No space left on device; free some space"), store.staging():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert store.ids() == [name]
    assert list(store.tmp.iterdir()) == []


@pytest.mark.parametrize("after", range(8))
def test_a_disk_that_fills_up_during_publish_and_set_refs(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Let the flush number `after` fail: files, folder, objects/, then .pending and the refs."""
    first = publish(text="first")
    store.set_refs("default", {"policy": first, "critic": first})
    sync, calls = storage.sync, []

    def fill_up(path: Path) -> None:
        calls.append(path)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    with monkeypatch.context() as patched:
        for module in ("storage", "refs"):
            patched.setattr(f"rlhf_pipeline.artifacts.{module}.sync", fill_up)
        with pytest.raises(StorageError, match="No space left on device"):
            second = publish(text="second")
            store.set_refs("default", {"policy": second, "critic": second})
    assert len(calls) == after + 1
    assert verify(store) == []
    assert len(set(store.refs()["default"].values())) == 1
    assert not [path for path in store.tmp.iterdir() if path.is_dir()]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_store_that_cannot_be_written(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Root ignores permissions, so the refusal is simulated where files are created."""
    name = publish()
    store.set_refs("default", {"sft": name})
    opened = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, flags, mode)

    monkeypatch.setattr(locks.os, "open", refuse)
    for write in (
        lambda: publish(text="other"),
        lambda: store.set_refs("default", {"sft": name}),
        lambda: store.lock("default", "sft").__enter__(),
    ):
        with pytest.raises(StorageError, match="make it accessible to this user, or name another folder"):
            write()
    assert store.open(store.resolve("sft")) == store.path(name)
    assert verify(store) == []


def test_an_error_in_a_stage_is_not_taken_for_one_of_the_lock(store: Store) -> None:
    with pytest.raises(PermissionError), store.lock("default", "sft"):
        raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")
