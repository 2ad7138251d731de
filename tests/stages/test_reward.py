"""The reward stage on rankings: what it publishes, counts and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_pipeline import cli
from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.stages.reward import accuracy_interval
from tests.ranking.toy import make_trainer, random_groups
from tests.tiny import make_causal

SETTINGS = (
    *("--per_device_train_batch_size", "2", "--max_steps", "2", "--logging_steps", "1", "--save_strategy", "no"),
    *("--eval_fraction", "0.25"),
)


def write_rankings(folder: Path) -> Path:
    """Eight prompts with two to five completions; the first of each is the best, the last two tie from three on."""
    rows = []
    for number in range(8):
        size = 2 + number % 4
        ranks = [*range(size - 1), size - 2 if size > 2 else 1]
        completions = [f" {number} and {n}" for n in range(size)]
        scores = [2.0 * (size - rank) for rank in ranks]
        rows.append({"prompt": f"Count {number}:", "completions": completions, "ranks": ranks, "scores": scores})
    file = folder / "rankings.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def train(folder: Path, *more: str, data: Path | None = None, learning_rate: str = "1e-2") -> dict[str, Any]:
    """Train in a new folder, on `write_rankings` or other data, and return the metrics of the artifact."""
    folder.mkdir(exist_ok=True)
    make_causal("llama", folder / "base")
    words = [
        "--model",
        str(folder / "base"),
        "--data",
        str(data or write_rankings(folder)),
        "--learning_rate",
        learning_rate,
        "--artifacts",
        str(folder / "store"),
    ]
    assert cli.main(["reward", *words, *SETTINGS, *more]) == 0
    store = Store(folder / "store")
    return store.manifest(store.refs()["default"]["reward"]).metrics


def test_groups_and_pairs_are_counted(tmp_path: Path) -> None:
    found = train(tmp_path)
    assert found["train_examples"] == 8 - found["held_out_examples"] and found["held_out_examples"] > 0
    assert found["pairs_train"] + found["pairs_held_out"] == 2 * (1 + 2 + 5 + 9)
    assert found["pairs_left_out_tie"] == 6
    assert found["eval_accuracy_low"] <= found["eval_accuracy"] <= found["eval_accuracy_high"]


def test_ties_margins_and_smoothing_change_the_loss(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain")
    for words in (("--ties", "model"), ("--use_margins", "true"), ("--label_smoothing", "0.2")):
        changed = train(tmp_path / words[0], *words)
        assert changed["eval_loss"] != pytest.approx(plain["eval_loss"], rel=1e-6), words
        assert ("pairs_left_out_tie" in changed) == (words[0] != "--ties")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--label_smoothing", "0.5"), "--label_smoothing: `label_smoothing` must be .* below 0.5, not 0.5"),
        (("--label_smoothing_factor", "0.1"), "--label_smoothing_factor: .* use `label_smoothing`"),
        (("--ties", "half"), "`ties` must be one of skip, model, not 'half'"),
    ],
)
def test_settings_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], why: str
) -> None:
    assert cli.main(["reward", "--data", str(write_rankings(tmp_path)), *words]) != 0
    assert re.search(why, capsys.readouterr().err)


def test_interval_is_over_prompts_not_pairs(tmp_path: Path) -> None:
    """Ten groups of 36 pairs that are all right or all wrong say as little as ten coins; so do the same ten again."""
    trainer = make_trainer(tmp_path, random_groups(0, [2]))
    openings = [f"p{number}" for number in range(10)]
    assert accuracy_interval(trainer, openings) == {}
    trainer.evaluated = torch.zeros(10, 8)
    trainer.evaluated[:, 0] = 36
    trainer.evaluated[::2, 1] = 36
    found = accuracy_interval(trainer, openings)
    assert found["eval_accuracy_low"] < 0.25 and found["eval_accuracy_high"] > 0.75
    trainer.evaluated = trainer.evaluated.repeat(5, 1)
    assert accuracy_interval(trainer, openings * 5) == pytest.approx(found)


def test_rankings_of_one_held_out_prompt_are_one_cluster(tmp_path: Path) -> None:
    """Every ranking five times over, among ties, has the interval of once, also where training goes by length."""
    rows = [
        {"prompt": f"Say {n}:", "completions": [f"{n * k}" * (n % 5 + k) for k in (1, 2, 3)], "ranks": [n % 2, 1, 2]}
        for n in range(24)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    tied = "".join(json.dumps({**row, "ranks": [0, 0, 0]}) + "\n" for row in rows)
    single, repeated = tmp_path / "single.jsonl", tmp_path / "repeated.jsonl"
    single.write_text(text)
    repeated.write_text(tied + text * 5)
    once = train(tmp_path / "once", data=single, learning_rate="0")
    by_length = ("--train_sampling_strategy", "group_by_length", "--per_device_eval_batch_size", "2")
    found = train(tmp_path / "again", *by_length, data=repeated, learning_rate="0")
    assert found["held_out_examples"] == 5 * once["held_out_examples"] > 20
    assert 0 < once["eval_accuracy_low"] < once["eval_accuracy"] < once["eval_accuracy_high"] < 1
    for name in ("eval_accuracy", "eval_accuracy_low", "eval_accuracy_high"):
        assert found[name] == pytest.approx(once[name]), name
