"""Sides by user, prompt and conversation: stable as rows come, and training set apart from evaluation."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.cli import main
from rlhf_pipeline.data.curation.sides import SplitBy, is_held_out
from rlhf_pipeline.data.splits import by_prompt
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Prompt
from tests.data.curation.rows import Row, prompts, read, write

LETTERS = "abcdefghijklmnopqrstuvwxyz  "


def topic(number: int) -> str:
    """Give prompts that resemble each other little."""
    return "x" + "".join(random.Random(number).choices(LETTERS, k=60)) + "x"


def split(tmp_path: Path, rows: list[Row], by: str, *more: str) -> tuple[list[str], list[str]]:
    source = write(tmp_path / "rows.jsonl", rows)
    words = ["data", "split", source, "--kind", "prompt", "--output", str(tmp_path / "out"), "--split_by", by]
    assert main([*words, "--eval_fraction", "0.3", *more]) == 0
    train, held = (prompts(tmp_path / "out" / f"{side}.jsonl") for side in ("train", "eval"))
    return train, held


def aside(tmp_path: Path) -> list[Row]:
    return read(tmp_path / "out" / "report" / "dropped.jsonl")


ROWS: list[Row] = [{"prompt": topic(n), "user": f"u{n // 8}", "conversation": f"c{n // 4}"} for n in range(100)]
"""Conversations of four rows, two to a user."""


@pytest.mark.parametrize("by", ["user", "prompt", "conversation"])
def test_sides_share_no_key_and_additions_move_nothing(by: str, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"]} for row in ROWS] if by == "prompt" else ROWS
    key = {row["prompt"]: row[by] for row in rows}
    train, held = split(tmp_path, rows[:60], by)
    assert train and held and len(train) + len(held) == 60
    assert not {key[text] for text in train} & {key[text] for text in held}
    more_train, more_held = split(tmp_path, list(reversed(rows)), by)
    assert len(more_train) + len(more_held) == 100
    assert set(train) < set(more_train) and set(held) < set(more_held)


def test_by_prompt_is_the_stages_own_split(tmp_path: Path) -> None:
    records = [Prompt(topic(n)) for n in range(100)]
    for seed in (0, 7):
        _, held = split(tmp_path, ROWS, "prompt", "--seed", str(seed))
        assert held == [record.prompt for record in by_prompt(records, 0.3, seed)[1]]


def test_a_row_without_a_user_has_no_side() -> None:
    with pytest.raises(DataError, match="f:3: no `user`, so no side for --split_by user; pass --split_by prompt"):
        is_held_out(Prompt("a"), "f:3", "user", 0.5, 0)


def test_a_row_without_a_conversation_goes_by_its_opening() -> None:
    def side(record: Prompt, by: SplitBy) -> bool:
        return is_held_out(record, "f:1", by, 0.5, 0)

    for n in range(20):
        assert side(Prompt(topic(n)), "conversation") == side(Prompt(topic(n)), "prompt")
    assert {side(Prompt("a", conversation=str(n)), "conversation") for n in range(20)} == {True, False}


def shared_prompts(by: str) -> list[Row]:
    """Every prompt twice, of two users and conversations."""
    twice = [{"prompt": row["prompt"], "user": f"x{n}", "conversation": f"x{n}"} for n, row in enumerate(ROWS)]
    return [*ROWS, *twice]


@pytest.mark.parametrize("by", ["user", "conversation"])
def test_training_rows_with_a_held_out_prompt_are_set_aside(by: str, tmp_path: Path) -> None:
    train, held = split(tmp_path, shared_prompts(by), by)
    assert not set(train) & set(held)
    reasons = {row["reason"].partition(": ")[0] for row in aside(tmp_path)}
    assert "the prompt of a held-out row" in reasons
    assert all(row["row"]["prompt"] in held for row in aside(tmp_path) if "prompt of" in row["reason"])
    assert len(train) + len(held) + len(aside(tmp_path)) == 200


def test_training_rows_like_a_held_out_one_are_set_aside(tmp_path: Path) -> None:
    rows = [row for n in range(50) for row in ({"prompt": topic(n)}, {"prompt": f"{topic(n)}!?"})]
    train, held = split(tmp_path, rows, "prompt", "--apart", "0")
    stems = [{text.removesuffix("!?") for text in side} for side in (train, held)]
    assert stems[0] & stems[1] and not aside(tmp_path)
    train, apart_held = split(tmp_path, rows, "prompt")
    assert apart_held == held
    stems = [{text.removesuffix("!?") for text in side} for side in (train, held)]
    assert not stems[0] & stems[1]
    assert {row["reason"].partition(": ")[0] for row in aside(tmp_path)} == {"near-duplicate of a held-out row"}


def test_a_side_without_rows_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "rows.jsonl", [{"prompt": "a"}])
    words = ["data", "split", source, "--kind", "prompt", "--output", str(tmp_path / "out")]
    assert main([*words, "--split_by", "prompt"]) == 2
    assert "eval.jsonl: no row is left for it" in capsys.readouterr().err
    assert main(words) == 2
    assert "`split_by` is missing" in capsys.readouterr().err


def test_one_file_again_takes_the_other_away(tmp_path: Path) -> None:
    split(tmp_path, ROWS, "prompt")
    words: list[Any] = ["data", "curate", tmp_path / "rows.jsonl", "--kind", "prompt", "--output", tmp_path / "out"]
    assert main(list(map(str, words))) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report", "train.jsonl"]
    assert json.loads((tmp_path / "out" / "report" / "curation.json").read_text())["settings"]["split_by"] is None
