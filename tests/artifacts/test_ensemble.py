"""An ensemble names its members and keeps them; what cannot be one is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.collect import collect
from rlhf_pipeline.artifacts.command import main
from rlhf_pipeline.artifacts.ensemble import ENSEMBLE, aligned, held_out_split, join, member_ids, member_offsets
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
    assert json.loads((folder / ENSEMBLE).read_text()) == {"members": members[::-1], "offsets": [0.0] * 3}
    assert (folder / "config.json").read_text() == "{}"
    manifest = store.manifest(ensemble)
    assert manifest.kind == "reward"
    assert manifest.parents == dict(zip(("member0", "member1", "member2"), members[::-1], strict=True))
    assert join(store, members[::-1], "other", "reward") == ensemble == store.ref("other", "reward")
    assert join(store, members, "default", "reward") != ensemble, "the first member starts the critic"
    assert member_ids(store.path(members[0])) == member_offsets(store.path(members[0])) == []


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
    out = capsys.readouterr().out
    assert ensemble is not None and ensemble in out and "note: the members were not held out of the same" in out
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


def trained(
    store: Store, member: int, mean: float | None, *, offset: float | None = None, fraction: float = 0.1
) -> str:
    """A reward model that the stage made, with its mean score on held-out completions and its offset."""
    metrics = {name: value for name, value in (("eval_mean_reward", mean), ("reward_offset", offset)) if value}
    with store.staging() as staged:
        (staged / "config.json").write_text("{}")
        return store.publish(
            staged, kind="reward", parents={}, input_key=f"{member} {offset} {fraction}", metrics=metrics,
            config={"seed": 7 + member}, data={"rankings": "r", **({"demonstrations": "d"} if offset else {})},
            extra={"inputs": {"version": 2, "settings": {"eval_fraction": fraction, "member": member}}},
        )  # fmt: skip


def test_members_are_aligned_and_their_mean_stays(store: Store) -> None:
    """Held-out means 1, 2 and 6: the average member is at 3."""
    members = [trained(store, number, mean) for number, mean in enumerate((1.0, 2.0, 6.0))]
    assert {held_out_split(store.manifest(name)) for name in members} == {("r", 2, 0.1, 7)}
    ensemble = join(store, members, "default", "reward")
    assert member_offsets(store.path(ensemble)) == [-2.0, -1.0, 3.0]


def test_alignment_takes_a_members_own_offset_into_account(store: Store) -> None:
    manifests = [store.manifest(trained(store, n, 4.0, offset=offset)) for n, offset in enumerate((1.0, 3.0))]
    assert aligned(manifests) == [0.0, 0.0], "normalised on the same demonstrations"
    plain = store.manifest(trained(store, 2, 4.0))
    assert aligned([manifests[0], plain]) == [-0.5, 0.5], "at 3 and at 4"


def test_members_whose_demonstrations_gave_no_zero_are_aligned_like_others(store: Store) -> None:
    """The manifest names demonstrations, but none fitted: without an offset among the metrics there is no zero."""
    manifests = [replace(store.manifest(trained(store, n, mean)), data={"rankings": "r", "demonstrations": "d"})
                 for n, mean in enumerate((1.0, 3.0))]  # fmt: skip
    assert aligned(manifests) == [-1.0, 1.0]


def test_members_held_out_of_other_rankings_cannot_be_aligned(store: Store) -> None:
    one, other = trained(store, 0, 1.0), trained(store, 0, 1.0, fraction=0.2)
    assert aligned([store.manifest(one), store.manifest(other)]) is None
    assert aligned([store.manifest(one), store.manifest(trained(store, 1, None))]) is None
