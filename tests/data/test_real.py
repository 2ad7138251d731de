"""Published data, read where REAL_DATA names a folder that holds it; it is not part of this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlhf_pipeline.data.pairs import dropped, ordered_pairs
from rlhf_pipeline.data.sources import read
from rlhf_pipeline.data.splits import by_prompt, opening
from rlhf_pipeline.records import Demonstration, Prompt, Ranking, Record

HH = "data/hh-harmless/harmless-base_test.jsonl.gz"
OASST = "data/oasst-en100/en_100_tree.jsonl"


def real(name: str) -> str:
    folder = os.environ.get("REAL_DATA")
    if not folder:
        pytest.skip("REAL_DATA=<folder with data/hh-harmless and data/oasst-en100> is not set")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return str(path)


@pytest.mark.parametrize(
    ("name", "kind", "records", "bad", "left_out"),
    [
        (HH, Ranking, 2303, 9, {}),
        (HH, Prompt, 2307, 5, {}),
        (OASST, Demonstration, 670, 0, {"synthetic": 22}),
        (OASST, Ranking, 207, 0, {"synthetic": 22, "fewer than two ranked replies": 42}),
        (OASST, Prompt, 475, 0, {"synthetic": 22}),
    ],
)
def test_every_row_is_read_or_accounted_for(
    name: str, kind: type[Record], records: int, bad: int, left_out: dict[str, int]
) -> None:
    rows = read(real(name), kind, on_bad_row="skip")
    assert (len(rows.records), len(rows.bad), rows.dropped) == (records, bad, left_out)


def test_hh_is_split_by_prompt() -> None:
    rankings = read(real(HH), Ranking, on_bad_row="skip").records
    train, held = by_prompt(rankings, 0.1, seed=0)
    assert 0.09 < len(held) / len(rankings) < 0.11
    assert not {opening(record) for record in train} & {opening(record) for record in held}
    assert all(ordered_pairs(ranking) == [(0, 1)] for ranking in rankings)


def test_openassistant_groups_are_of_two_to_nine() -> None:
    rankings = read(real(OASST), Ranking).records
    assert {len(ranking.completions) for ranking in rankings} == {2, 3, 4, 5, 6, 8, 9}
    assert not dropped(rankings)
