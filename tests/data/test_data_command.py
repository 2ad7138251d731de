"""`rlhf data`: its words and what it says of others."""

from __future__ import annotations

import importlib

import pytest

from rlhf_pipeline.cli import main
from rlhf_pipeline.data.command import WORDS


def test_every_word_leads_to_a_function_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    page = capsys.readouterr().out
    for name, word in WORDS.items():
        assert name in page and word.summary in page
        assert callable(getattr(importlib.import_module(word.module), word.function))
        assert main(["data", name, "--help"]) == 0
        assert f"usage: rlhf data {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "hint"), [("curat", "did you mean `rlhf data curate`?"), ("xyz", "expected one of curate, split, audit")]
)
def test_other_words(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", word]) == 2
    assert hint in capsys.readouterr().err
