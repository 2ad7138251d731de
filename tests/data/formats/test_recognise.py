"""Formats are told apart by their rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from rlhf_pipeline.data.formats import FORMATS, named, recognise
from rlhf_pipeline.data.sources import read
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.records import Demonstration

DATA = Path(__file__).parents[3] / "data"


@pytest.mark.parametrize(
    ("sample", "name"),
    [
        ("preferences-hh.jsonl", "hh"),
        ("trees-oasst.jsonl", "oasst"),
        ("comparisons-tldr.jsonl", "tldr"),
        ("ratings-ultrafeedback.jsonl", "ultrafeedback"),
        ("preferences.jsonl", "trl"),
        ("rankings.jsonl", "trl"),
        ("messages.jsonl", "trl"),
    ],
)
def test_each_sample_is_recognised(sample: str, name: str) -> None:
    for line in (DATA / sample).read_text().splitlines():
        assert recognise(json.loads(line)) is FORMATS[name]


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_data_of_another_kind_is_refused_whatever_bad_rows_do(on_bad_row: Literal["error", "skip"]) -> None:
    sample = str(DATA / "preferences-hh.jsonl")
    with pytest.raises(ConfigError) as caught:
        read(sample, Demonstration, on_bad_row=on_bad_row)
    assert (
        str(caught.value)
        == f"{sample}:1: data of format hh gives rankings, prompts, no demonstrations; pass other data"
    )


def test_named() -> None:
    assert named("auto") is None
    assert all(named(name) is form for name, form in FORMATS.items())
