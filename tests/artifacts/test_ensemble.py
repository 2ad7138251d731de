"""An ensemble names its members and keeps them; what cannot be one is refused."""

from __future__ import annotations

import json

import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.collect import collect
from rlhf_pipeline.artifacts.command import main
from rlhf_pipeline.artifacts.ensemble import ENSEMBLE, join, member_ids
from rlhf_pipeline.artifacts.lineage import text_tree
from rlhf_pipeline.artifacts.merge import merge
from rlhf_pipeline.artifacts.verify import verify
from rlhf_pipeline.errors import ArtifactError
from tests.artifacts.conftest import Publish


@pytest.fixture
def members(publish: Publish) -> list[str]:
    start = publish("sft")
    return [publish("reward", text, start=start) for text in ("one", "two", "three")]


def test_it_names_its_members_in_their_order_and_is_published_once(store: Store, members: list[str]) -> None:
    ensemble = join(store, members[::-1], "default", "reward")
    folder = store.path(ensemble)
    assert member_ids(folder) == members[::-1]
    assert json.loads((folder / ENSEMBLE).read_text()) == {"members": members[::-1]}
    assert (folder / "config.json").read_text() == "{}"
    manifest = store.manifest(ensemble)
    assert manifest.kind == "reward"
    assert manifest.parents == dict(zip(("member0", "member1", "member2"), members[::-1], strict=True))
    assert join(store, members[::-1], "other", "reward") == ensemble == store.ref("other", "reward")
    assert join(store, members, "default", "reward") != ensemble, "the first member starts the critic"
    assert member_ids(store.path(members[0])) == []


def test_lineage_verify_and_gc_know_the_members(store: Store, publish: Publish, members: list[str]) -> None:
    unused = publish("reward", "four")
    ensemble = join(store, members, "default", "reward")
    tree = text_tree(store, ensemble)
    assert [f"member{n}: {name}" in tree for n, name in enumerate(members)] == [True] * 3
    assert collect(store, delete=True).objects == [unused]
    assert verify(store) == []
    lost = store.path(members[1])
    lost.rename(store.root / "lost")
    assert [line for line in verify(store) if f"its parent member1 {members[1]} is not in the store" in line]


def test_the_command_joins_what_it_is_given(
    store: Store, members: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    store.set_refs("a", {"reward": members[0]})
    store.set_refs("b", {"reward": members[1]})
    assert main(["ensemble", "a/reward", "b/reward", members[2][:12], "--artifacts", str(store.root)]) == 0
    ensemble = store.ref("default", "reward")
    assert ensemble is not None and ensemble in capsys.readouterr().out
    assert member_ids(store.path(ensemble)) == members


def test_what_is_no_ensemble_is_refused(store: Store, members: list[str]) -> None:
    ensemble = join(store, members, "default", "reward")
    for names, why in (
        (members[:1], "two different members or more"),
        ([members[0], members[0]], "two different members or more"),
        ([members[0], ensemble], f"{ensemble} is an ensemble; name its members"),
    ):
        with pytest.raises(ArtifactError, match=why):
            join(store, names, "default", "reward")
    with pytest.raises(ArtifactError, match="merge` for each of reward-"):
        merge(store, ensemble, "default", "reward-merged")


def test_members_have_one_tokenizer(store: Store, members: list[str]) -> None:
    with store.staging() as staged:
        (staged / "tokenizer.json").write_text("{}")
        other = store.publish(staged, kind="reward", parents={}, input_key="k", config={}, data={}, metrics={})
    with pytest.raises(ArtifactError, match=f"{other} has another tokenizer or chat template than {members[0]}"):
        join(store, [members[0], other], "default", "reward")
