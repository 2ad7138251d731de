"""Accuracy on held-out rankings: counted by hand on answers whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import torch

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.ensemble import join
from rlhf_pipeline.bases import find_checkpoint
from rlhf_pipeline.data.sources import read
from rlhf_pipeline.data.splits import by_prompt
from rlhf_pipeline.data.world import places
from rlhf_pipeline.data.world.answers import answer
from rlhf_pipeline.data.world.prompts import ask
from rlhf_pipeline.evaluate.held_out import _accuracy, held_out_accuracy
from rlhf_pipeline.jobs import KEY_VERSION
from rlhf_pipeline.records import Ranking


class Longer:
    """A reward model that likes long answers."""

    def score(self, prompts: Sequence[object], completions: Sequence[str], finished: Sequence[bool]) -> torch.Tensor:
        return torch.tensor([float(len(completion)) for completion in completions])


def test_accuracy_and_ceiling_by_hand() -> None:
    world, draw = places.build(0), Random(0)
    question = ask(world, draw, "closed")
    good = answer(world, draw, question.facts, "good", courtesy=0.0)
    junk = answer(world, draw, question.facts, "junk", courtesy=0.0) + " " * 200
    misread = Ranking(question.prompt, [good, junk], [1, 0])
    right = Ranking(question.prompt, [good, junk], [0, 1])

    found = _accuracy([misread, right, right, right], {question.prompt: question.facts}, Longer())  # type: ignore[arg-type]

    assert found is not None
    assert found["mean"] == pytest.approx(0.25)  # the longer one was preferred once
    assert found["ceiling"] == pytest.approx(0.75)  # the judge knows better than the labeller who misread
    assert found["n"] == 4


def test_nothing_to_compare() -> None:
    assert _accuracy([], {}, Longer()) is None  # type: ignore[arg-type]


def _publish(store: Store, rankings: str, member: int, fraction: float = 0.5) -> str:
    """A reward model of a seed of its own, whose split is that of the first member."""
    inputs = {"version": KEY_VERSION, "settings": {"eval_fraction": fraction, "member": member}}
    with store.staging() as staged:
        (staged / "config.json").write_text("{}")
        return store.publish(
            staged, kind="reward", parents={}, input_key=f"{member} {fraction}", config={"seed": 42 + member},
            data={"rankings": rankings}, metrics={}, extra={"inputs": inputs},
        )  # fmt: skip


def test_an_ensemble_is_measured_on_what_all_its_members_were_held_out_of(tmp_path: Path) -> None:
    store, world, draw = Store(tmp_path), places.build(0), Random(0)
    questions = {one.prompt: one for one in (ask(world, draw, "closed") for _ in range(8))}
    feedback, folder = store.run_dir("r", "feedback"), store.run_dir("r", "world")
    feedback.mkdir(parents=True)
    folder.mkdir(parents=True)
    rows = [{"prompt": prompt, "completions": ["long one", "b"], "ranks": [0, 1]} for prompt in questions]
    (feedback / "rankings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = [{"prompt": prompt, "facts": question.facts} for prompt, question in questions.items()]
    (folder / "rank-prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    read_back = read(str(feedback / "rankings.jsonl"), Ranking)
    members = [_publish(store, read_back.fingerprint, member) for member in (0, 1)]
    _, held_out = by_prompt(read_back.records, 0.5, 42)

    for name in (join(store, members, "r", "reward"), *members):
        found = held_out_accuracy(store, "r", find_checkpoint(store, name, "r"), Longer())  # type: ignore[arg-type]
        assert found is not None and found["n"] == len(held_out) < len(rows)
    other = _publish(store, read_back.fingerprint, 0, fraction=0.25)
    mixed = find_checkpoint(store, join(store, [members[0], other], "r", "reward"), "r")
    assert held_out_accuracy(store, "r", mixed, Longer()) is None  # type: ignore[arg-type]
