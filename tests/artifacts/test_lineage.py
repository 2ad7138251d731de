"""The ancestry of an object as text, as a graph, and as a picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhf_pipeline.artifacts import Store, lineage
from tests.artifacts.conftest import Publish

PIN = "hub:owner/name@0123abc"


@pytest.fixture
def policy(publish: Publish) -> str:
    sft = publish("sft", base=PIN)
    reward = publish("reward", sft=sft)
    return publish("policy", sft=sft, reward=reward)


def test_text(store: Store, policy: str) -> None:
    text = re.sub(r"-[0-9a-f]{12}", "", lineage.text_tree(store, policy))
    text = re.sub(r"20\d\d-\S+", "DATE", text)
    assert text.splitlines() == [
        "policy  DATE",
        "├── data: rows sha256:00",
        "├── reward: reward  DATE",
        "│   ├── data: rows sha256:00",
        "│   └── sft: sft  DATE",
        "│       ├── data: rows sha256:00",
        f"│       └── base: {PIN}",
        "└── sft: sft (above)",
    ]


def test_a_lost_parent_is_shown_as_such(store: Store, policy: str) -> None:
    sft = store.manifest(policy).parents["sft"]
    store.path(sft).rename(store.root / "lost")
    assert f"└── sft: {sft} (missing)" in lineage.text_tree(store, policy)


def test_edges(store: Store, policy: str) -> None:
    parents = store.manifest(policy).parents
    assert lineage.edges(store, policy) == [
        (policy, "reward", parents["reward"]),
        (policy, "sft", parents["sft"]),
        (parents["reward"], "sft", parents["sft"]),
        (parents["sft"], "base", PIN),
    ]


def test_dot(store: Store, policy: str) -> None:
    reward = store.manifest(policy).parents["reward"]
    lines = lineage.dot(store, policy).splitlines()
    assert lines[0] == "digraph lineage {"
    assert lines[-1] == "}"
    assert f'  "{reward}" -> "{policy}" [label="reward"];' in lines
    assert sum("->" in line for line in lines) == 4


def test_places_put_every_parent_left_of_its_children(store: Store, policy: str) -> None:
    arrows = lineage.edges(store, policy)
    places = lineage._places(policy, arrows)
    assert all(places[parent][0] < places[child][0] for child, _, parent in arrows)
    assert len(set(places.values())) == len(places) == 4


@pytest.mark.parametrize("name", ["lineage.png", "lineage.svg"])
def test_draw(store: Store, policy: str, tmp_path: Path, name: str) -> None:
    lineage.draw(store, policy, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")


def test_draw_an_object_without_parents(store: Store, publish: Publish, tmp_path: Path) -> None:
    lineage.draw(store, publish(), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 0
