"""gc keeps what a ref reaches, its ancestors, and what a running stage reads; all else goes when told."""

from __future__ import annotations

import json

import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.collect import collect, with_ancestors
from rlhf_pipeline.artifacts.verify import verify
from rlhf_pipeline.errors import ArtifactError
from tests.artifacts.conftest import Publish
from tests.artifacts.processes import child, finish, line


def test_refs_and_ancestors_stay(store: Store, publish: Publish) -> None:
    base = publish("base")
    sft = publish("sft", base=base)
    policy = publish("policy", sft=sft, base="hub:owner/name@0123")
    old = publish("policy", "superseded", sft=sft)
    store.set_refs("default", {"policy": policy})
    found = collect(store, delete=False)
    assert found.objects == [old]
    assert found.size == sum(path.stat().st_size for path in store.path(old).iterdir())
    assert len(store.ids()) == 4  # a dry run deletes nothing
    assert collect(store, delete=True).objects == [old]
    assert store.ids() == sorted([base, sft, policy])
    assert verify(store) == []
    assert collect(store, delete=True).objects == []


def test_a_move_that_was_only_announced_keeps_its_objects(store: Store, publish: Publish) -> None:
    policy = publish("policy")
    (store.root / "refs/default").mkdir(parents=True)
    (store.root / "refs/default/.pending").write_text(json.dumps({"policy": policy}))
    assert collect(store, delete=True).objects == []


def test_what_a_live_stage_reads_stays_with_its_ancestors(store: Store, publish: Publish) -> None:
    base = publish("base")
    sft = publish("sft", base=base)
    other = publish("reward")
    hold = """
    with store.lock("default", "ppo") as lock:
        lock.reads(sys.argv[2:])
        print("held", flush=True)
        sys.stdin.readline()
    """
    with child(store.root, hold, sft) as stage:
        assert line(stage) == "held"
        assert collect(store, delete=True).objects == [other]
        assert stage.stdin is not None
        stage.stdin.write("\n")
        finish(stage)
    assert store.ids() == sorted([base, sft])
    assert collect(store, delete=True).objects == sorted([base, sft])


def test_the_base_of_an_adapter_stays(store: Store, publish: Publish) -> None:
    base = publish("base")
    with store.staging() as staged:
        (staged / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        adapter = store.publish(staged, kind="sft", parents={}, input_key="k", config={}, data={}, metrics={})
    assert with_ancestors(store, [adapter]) == {adapter, base}


def test_folders_of_dead_processes_go_and_those_of_live_ones_stay(store: Store) -> None:
    die = """
    with store.staging() as staged:
        (staged / "half").write_text("x" * 10)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with store.staging() as staged:
        with child(store.root, die) as dead:
            dead.wait()
        found = collect(store, delete=True)
        assert len(found.folders) == 1
        assert found.size == 10
        assert staged.is_dir()
        assert [path for path in store.tmp.iterdir() if path.is_dir()] == [staged]


def test_a_kept_object_whose_parents_cannot_be_read_stops_it(store: Store, publish: Publish) -> None:
    base = publish("base")
    sft = publish("sft", base=base)
    store.set_refs("default", {"sft": sft})
    (store.path(sft) / "manifest.json").chmod(0o644)
    (store.path(sft) / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="is damaged: not a manifest"):
        collect(store, delete=True)
    assert store.ids() == sorted([base, sft])


def test_a_damaged_object_that_nothing_needs_goes(store: Store, publish: Publish) -> None:
    name = publish()
    (store.path(name) / "manifest.json").unlink()
    assert collect(store, delete=True).objects == [name]
    assert store.ids() == []


def test_work_in_progress_stays(store: Store) -> None:
    folder = store.run_dir("default", "sft")
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").touch()
    collect(store, delete=True)
    assert (folder / "metrics.jsonl").exists()
