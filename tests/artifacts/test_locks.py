"""Locks between real processes: busy while held, free at once when the holder dies, never inherited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_pipeline.artifacts import Store, locks
from rlhf_pipeline.errors import ArtifactError
from tests.artifacts.conftest import Publish
from tests.artifacts.processes import child, finish, line

HOLD = """
with store.lock("default", "sft") as lock:
    lock.reads(sys.argv[2:])
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""


def take(store: Store) -> None:
    with store.lock("default", "sft"):
        pass


def test_a_busy_stage_names_its_holder(store: Store) -> None:
    with child(store.root, HOLD) as holder:
        pid = line(holder)
        with pytest.raises(ArtifactError, match=rf"default/sft is already running as process {pid} on \S+ since 20"):
            take(store)
        with store.lock("default", "reward"), store.lock("other", "sft"):
            pass
        assert holder.stdin is not None
        holder.stdin.write("\n")
        finish(holder)
    take(store)


def test_a_killed_holder_leaves_no_lock(store: Store) -> None:
    with child(store.root, HOLD) as holder:
        line(holder)
        holder.kill()
        holder.wait()
        take(store)


def test_a_forked_worker_does_not_hold_its_parents_lock(store: Store) -> None:
    script = """
    with store.lock("default", "sft"), store.staging() as staged:
        worker = os.fork()
        if worker == 0:
            sys.stdin.readline()
            os._exit(0)
        print(worker, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with child(store.root, script) as parent:
        line(parent)
        parent.wait()
        take(store)
        assert len(locks.stale_folders(store.tmp)) == 1


def test_one_process_cannot_hold_a_stage_twice(store: Store) -> None:
    with store.lock("default", "sft"), pytest.raises(ArtifactError, match="already running"):
        take(Store(store.root))


def test_a_half_written_holder_is_still_an_answer(store: Store) -> None:
    with store.lock("default", "sft"):
        (store.locks / "default.sft").write_text('{"pid": 1')
        with pytest.raises(ArtifactError, match="already running; wait until it ends"):
            take(store)


def test_the_lock_is_free_after_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.lock("default", "sft"):
        raise ZeroDivisionError
    take(store)


def test_reads_are_recorded_and_must_exist(store: Store, publish: Publish) -> None:
    name = publish()
    with store.lock("default", "sft") as lock:
        lock.reads([name, "hub:owner/model@0123"])
        with pytest.raises(ArtifactError, match=r"base-000000000000 is gone"):
            lock.reads(["base-000000000000"])
        assert json.loads((store.locks / "default.sft").read_text())["reads"] == [name]
        assert locks.live_reads(store.locks) == {name}
    assert locks.live_reads(store.locks) == set()


def test_what_a_stage_publishes_is_read_by_it(store: Store, publish: Publish) -> None:
    with store.lock("default", "sft"):
        name = publish()
        assert locks.live_reads(store.locks) == {name}


def test_a_scratch_folder_is_not_stale_while_it_is_used(tmp_path: Path) -> None:
    with locks.scratch_folder(tmp_path) as folder:
        locks.remove_stale(tmp_path)
        assert folder.is_dir()
        assert locks.stale_folders(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_dead_process_leaves_a_stale_folder_that_the_next_removes(store: Store) -> None:
    script = """
    with store.staging() as staged:
        (staged / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with child(store.root, script) as killed:
        killed.wait()
    assert len(locks.stale_folders(store.tmp)) == 1
    with store.staging() as staged:
        assert [path for path in store.tmp.iterdir() if path.is_dir()] == [staged]
    assert list(store.tmp.iterdir()) == []


@pytest.mark.parametrize("recreated", [False, True])
def test_a_lock_taken_for_stale_before_it_was_locked_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recreated: bool
) -> None:
    """Other processes remove (and make again) the first lock file in the instant between its creation and locking."""
    open_locked, opened = locks._open_locked, []

    def lose_the_first(path: Path, operation: int) -> int:
        descriptor = open_locked(path, operation)
        opened.append(path)
        if len(opened) == 1:
            path.unlink()
            if recreated:
                path.touch()
        return descriptor

    monkeypatch.setattr(locks, "_open_locked", lose_the_first)
    with locks.scratch_folder(tmp_path) as folder:
        assert folder.with_suffix(".lock") == opened[1]
        assert opened[0] != opened[1]
