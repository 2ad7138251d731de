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
from rlhf_pipeline.data.splits import by_prompt
from rlhf_pipeline.records import Prompt
from rlhf_pipeline.stages.reward import accuracy_interval
from tests.e2e.pipeline import without
from tests.ranking.toy import make_trainer, random_groups
from tests.tiny import make_causal

SETTINGS = (
    *("--per_device_train_batch_size", "2", "--max_steps", "2", "--logging_steps", "1", "--save_strategy", "no"),
    *("--eval_fraction", "0.25", "--learning_rate", "1e-2"),
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


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def run(folder: Path, *more: str, rows: list[dict[str, Any]] | None = None) -> int:
    """Train in a folder, on `rows` or those of `write_rankings`; gives the exit status."""
    folder.mkdir(exist_ok=True)
    make_causal("llama", folder / "base")
    data = str(write_rankings(folder)) if rows is None else write(folder / "rows.jsonl", rows)
    words = ["--model", str(folder / "base"), "--data", data, "--artifacts", str(folder / "store")]
    return cli.main(["reward", *words, *without(SETTINGS, more), *more])


def metrics(folder: Path) -> dict[str, Any]:
    store = Store(folder / "store")
    return store.manifest(store.refs()["default"]["reward"]).metrics


def train(folder: Path, *more: str, rows: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Train, and return the metrics of the artifact."""
    assert run(folder, *more, rows=rows) == 0
    return metrics(folder)


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


def test_demonstrations_that_do_not_fit_are_counted_and_set_aside(tmp_path: Path) -> None:
    rows = [{"prompt": f"Count {n}:" * (50 if n == 2 else 1), "completion": " Good."} for n in range(4)]
    demonstrations = write(tmp_path / "demonstrations.jsonl", [*rows, {"prompt": "", "completion": "x"}])
    found = train(tmp_path, "--normalize_on", demonstrations, "--on_bad_row", "skip")
    assert [found[f"demonstrations_{name}"] for name in ("used", "long", "bad")] == [3, 1, 1]
    assert "reward_offset" in found
    (aside,) = (tmp_path / "store").rglob("long_demonstrations.jsonl")
    assert json.loads(aside.read_text())["where"].endswith("demonstrations.jsonl:3")


@pytest.mark.parametrize("more", [(), ("--ensemble_size", "2"), ("--ensemble_size", "2", "--ensemble", "heads")])
def test_no_demonstration_that_fits_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    rows = [{"prompt": f"Count {n}:" * 50, "completion": " Good."} for n in range(4)]
    assert run(tmp_path, "--normalize_on", write(tmp_path / "long.jsonl", rows), *more) == 2
    assert re.search(
        r"--normalize_on: .*long.jsonl:1: \d+ tokens, more than the 128 that fit, and none of 4 demonstrations does",
        capsys.readouterr().err,
    )
    assert Store(tmp_path / "store").refs() == {}


def tied_where(held_out: bool) -> list[dict[str, Any]]:
    """Rankings whose ranks tie on one side of the split."""
    rows = [{"prompt": f"Count {n}:", "completions": [" a", " b"], "ranks": [0, 1]} for n in range(16)]
    side = by_prompt([Prompt(row["prompt"]) for row in rows], 0.25, 42)[held_out]
    tied = {record.prompt for record in side[: len(side) if held_out else 3]}
    return [{**row, "ranks": [0, 0]} if row["prompt"] in tied else row for row in rows]


@pytest.mark.parametrize("more", [(), ("--ensemble_size", "2"), ("--ensemble_size", "2", "--ensemble", "heads")])
def test_nothing_to_hold_out_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    """Heads once failed after all training, and members were believed to have one zero."""
    assert run(tmp_path, *more, rows=tied_where(held_out=True)) == 2
    assert "no row is left to hold out (0 rows too long, " in capsys.readouterr().err
    assert Store(tmp_path / "store").refs() == {}


def test_rankings_without_a_pair_are_counted(tmp_path: Path) -> None:
    found = train(tmp_path, rows=tied_where(held_out=False))
    assert found["rows_without_pairs"] == 3 == 16 - found["rows_used"]
    assert found["rows_used"] == found["train_examples"] + found["held_out_examples"]


def test_texts_that_the_template_makes_equal_are_not_compared(tmp_path: Path) -> None:
    template = tmp_path / "trim.jinja"
    template.write_text(
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    rows = [
        {"prompt": [{"role": "user", "content": f"Count {n}:"}], "completions": ["a", "a ", "b"], "ranks": [0, 1, 2]}
        for n in range(16)
    ]
    found = train(tmp_path, "--chat_template_path", str(template), rows=rows)
    assert found["pairs_left_out_same_tokens"] == 16
    assert found["pairs_train"] + found["pairs_held_out"] == 32


def test_scores_that_contradict_the_ranks_give_no_margin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A margin below zero would ask the better completion to trail."""
    rows = [{"prompt": f"Count {n}:", "completions": [" a", " b"], "ranks": [0, 1], "scores": [2, 1]} for n in range(8)]
    rows[3]["scores"] = [1.5, 9]
    assert run(tmp_path, "--use_margins", "true", rows=rows) == 2
    error = capsys.readouterr().err
    assert "rows.jsonl:4: completion 0 is ranked above completion 1, but `scores` say 1.5 and 9; correct" in error
    assert train(tmp_path, "--use_margins", "true", "--on_bad_row", "skip", rows=rows)["rows_bad"] == 1
    (aside,) = (tmp_path / "store").rglob("bad_rows.jsonl")
    bad = json.loads(aside.read_text())
    assert bad["reason"].startswith("completion 0 is ranked above") and json.loads(bad["raw"])["scores"] == [1.5, 9]
    assert train(tmp_path / "without", rows=rows)["rows_used"] == 8


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
    tied = [{**row, "ranks": [0, 0, 0]} for row in rows]
    still = ("--learning_rate", "0")
    once = train(tmp_path / "once", *still, rows=rows)
    by_length = ("--train_sampling_strategy", "group_by_length", "--per_device_eval_batch_size", "2")
    found = train(tmp_path / "again", *by_length, *still, rows=[*tied, *rows * 5])
    assert found["held_out_examples"] == 5 * once["held_out_examples"] > 20
    assert 0 < once["eval_accuracy_low"] < once["eval_accuracy"] < once["eval_accuracy_high"] < 1
    for name in ("eval_accuracy", "eval_accuracy_low", "eval_accuracy_high"):
        assert found[name] == pytest.approx(once[name]), name
