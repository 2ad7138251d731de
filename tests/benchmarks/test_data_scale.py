"""The synthetic rows hold what the steps look for, and a measurement is that of the command."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.data_scale import grown, line, measured, rows, write_rows


def test_rows_repeat_resemble_and_hold_addresses() -> None:
    made = list(rows(3000, random.Random(0)))
    assert made == list(rows(3000, random.Random(0)))
    prompts = [row["prompt"] for row in made]
    assert 0.02 < 1 - len(set(prompts)) / 3000 < 0.06
    assert 0.01 < sum("@" in prompt for prompt in prompts) / 3000 < 0.03
    assert len({row["user"] for row in made}) > 500


def test_a_command_is_measured(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 200)
    one = measured("split", tmp_path)
    assert one["seconds"] > 0 and 20 < one["peak_mib"] < 2000
    assert "train apart from eval" in one["output"]
    assert (tmp_path / "out-split" / "eval.jsonl").is_file()


def test_an_inspection_is_measured(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 200)
    one = measured("inspect", tmp_path)
    assert "200 demonstrations" in one["output"]
    assert not (tmp_path / "out").exists()


def test_growth_is_an_exponent() -> None:
    runs = [{"rows": 100, "seconds": 2.0, "peak_mib": 50}, {"rows": 1000, "seconds": 20.0, "peak_mib": 50}]
    assert grown(runs) == {"seconds": 1.0, "peak_mib": 0.0}
    assert grown(runs[:1]) is None
    assert line({"command": "audit", **runs[0]}) == "audit        100 rows     2.0 s      50 rows/s    50 MiB"
