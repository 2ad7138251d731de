"""A folder is tried out for real, and nothing stays behind."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from rlhf_pipeline.launch.doctor import artifact_folder
from rlhf_pipeline.launch.doctor.artifact_folder import check_artifacts, locks, renames
from rlhf_pipeline.launch.doctor.findings import Finding


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_folder, "PROBE", 64 * 1000)
    monkeypatch.setattr(artifact_folder, "SLOW", 0.0)  # a busy disk is no failure of the test


def by_check(found: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in found}


def test_good_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    found = by_check(check_artifacts(tmp_path / "a" / "b"))
    assert {finding.check for finding in found.values() if finding.status == "fail"} <= {"disk space"}
    assert found["artifacts"].seen == f"{tmp_path}/a/b: writable, renames replace at once, locks exclude"
    assert found["disk speed"].seen.endswith("/s written and flushed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_where_no_folder_can_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (found,) = check_artifacts(tmp_path / name)
    assert (found.check, found.status) == ("artifacts", "fail") and "cannot be an artifact store: " in found.seen
    assert found.fix in ("name another one with --artifacts", "give a shorter name")


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # root may write anywhere
    found = by_check(check_artifacts(tmp_path))["artifacts"]
    assert (found.status, found.seen) == ("fail", f"{tmp_path}: Read-only file system")


@pytest.mark.parametrize(("free", "status"), [(5 * 10**8, "fail"), (5 * 10**9, "warn"), (5 * 10**10, "pass")])
def test_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=free))
    assert by_check(check_artifacts(tmp_path))["disk space"].status == status


def test_no_room_for_the_speed_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    assert "disk speed" not in by_check(check_artifacts(tmp_path))


def test_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_folder, "SLOW", float("inf"))
    assert by_check(check_artifacts(tmp_path))["disk speed"].status == "warn"


def test_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What flock does on a network disk that is mounted without it."""
    assert locks(tmp_path)
    monkeypatch.setattr("fcntl.flock", lambda descriptor, operation: None)
    assert not locks(tmp_path)
    found = by_check(check_artifacts(tmp_path))["artifacts"]
    assert found.status == "fail" and found.seen == f"{tmp_path}: two programs can hold one lock"


def test_disk_without_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert renames(tmp_path)

    def refuse(self: Path, target: Path) -> Path:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(Path, "replace", refuse)
    assert "cannot be renamed over" in by_check(check_artifacts(tmp_path))["artifacts"].seen


def test_store_on_two_disks(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk")
    (tmp_path / "objects").symlink_to(other)
    assert "on several disks (objects)" in by_check(check_artifacts(tmp_path))["artifacts"].seen
