"""Durable writes, free space, and what disks refuse, said in one line."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_pipeline.artifacts import storage
from rlhf_pipeline.errors import DataError, StorageError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EROFS, "Read-only file system"), errno.EROFS),
        (PermissionError(errno.EACCES, "Permission denied"), errno.EACCES),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (RuntimeError("I/O error: No such file or directory (os error 2)"), None),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), errno.ENOSPC),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (StorageError("said already"), None),
    ],
)
def test_refusal(error: Exception, code: int | None) -> None:
    assert storage.refusal(error) == code


def test_a_refusal_is_one_line_with_place_and_next_step() -> None:
    with pytest.raises(StorageError) as caught, storage.storage_errors("artifacts: cannot publish sft"):
        raise OSError(errno.ENOSPC, "No space left on device", "artifacts/tmp/x")
    assert str(caught.value) == (
        "artifacts: cannot publish sft: No space left on device (artifacts/tmp/x); free some space "
        "(`rlhf artifacts gc --yes` deletes what no run uses) and type the same command again"
    )


@pytest.mark.parametrize("error", [ValueError("a bug"), DataError("a row"), FileNotFoundError(errno.ENOENT, "gone")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, storage.storage_errors("doing"):
        raise error
    assert caught.value is error


def test_a_truly_full_device() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match="No space left on device"), storage.storage_errors("writing"):
        full.write_text("x")


def test_readable_size() -> None:
    assert storage.readable_size(0) == "0 B"
    assert storage.readable_size(999) == "999 B"
    assert storage.readable_size(1500) == "1.5 kB"
    assert storage.readable_size(14e9) == "14.0 GB"
    assert storage.readable_size(3e15) == "3000.0 TB"


def test_require_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1500))
    storage.require_space(tmp_path / "not/yet/there", 1500, "the model")
    with pytest.raises(StorageError, match=r"the model needs 2\.0 kB and 1\.5 kB are free; free some space"):
        storage.require_space(tmp_path / "not/yet/there", 2000, "the model")
    assert list(tmp_path.iterdir()) == []


def test_write_atomic_keeps_the_old_text_when_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "ref"
    storage.write_atomic(path, "old")
    monkeypatch.setattr(storage, "sync", refuse)
    with pytest.raises(OSError, match="No space"):
        storage.write_atomic(path, "new")
    assert path.read_text() == "old"
