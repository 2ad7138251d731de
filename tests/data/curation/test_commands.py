"""`rlhf data curate`, `split` and `audit` are there, and say what they take."""

from __future__ import annotations

import pytest

from rlhf_pipeline.cli import main


@pytest.mark.parametrize(
    ("word", "settings"),
    [
        ("curate", ("--max_per_user", "--near_duplicates", "--split_by")),
        ("split", ("--split_by", "--eval_fraction", "--apart")),
        ("audit", ("--train", "--eval", "--on_overlap")),
    ],
)
def test_every_word_has_help(word: str, settings: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    assert f"  {word} " in capsys.readouterr().out
    assert main(["data", word, "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"usage: rlhf data {word}")
    assert all(f"  {setting}  " in page for setting in settings)


def test_split_does_nothing_but_divide(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "split", "rows.jsonl", "--kind", "prompt", "--output", "out", "--max_per_user", "3"]) == 2
    assert "`max_per_user` is not a setting" in capsys.readouterr().err
