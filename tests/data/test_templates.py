"""Templates of a mapping: columns, text, and what may be empty."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.data.templates import Template
from rlhf_pipeline.errors import ConfigError, DataError

ROW: dict[str, Any] = {
    "instruction": "Add.",
    "input": "",
    "n": 3,
    "info": {"post": "P", "tags": ["x", "y"]},
    "answers": [{"text": "a", "score": 1}, {"text": "b", "score": 2}],
    "a.b": "dotted",
}


def value(text: str, row: dict[str, Any] = ROW) -> Any:
    return Template.parse(text, "map").value(row, "f:1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("instruction", "Add."),
        ("n", 3),
        ("info.post", "P"),
        ("info.tags.1", "y"),
        ("answers.text", ["a", "b"]),
        ("answers.0.score", 1),
        ("a.b", "dotted"),
        ("input?", None),
        ("absent?", None),
        ("info.absent?", None),
        ("{instruction}", "Add."),
        (" {instruction}", " Add."),
        ("Q{n}: {info.post}", "Q3: P"),
        ("{{{n}}} {{n}}", "{3} {n}"),
        ("{instruction}\n\n{input?}", "Add."),
        ("{input?}\n\n{instruction}", "Add."),
        ("A\n\nInput:\n{input?}\n\n{n}", "A\n\n3"),
        ("{input?}", None),
    ],
)
def test_values(text: str, expected: Any) -> None:
    assert value(text) == expected


def test_an_optional_column_that_says_something_keeps_its_paragraph() -> None:
    row = {"instruction": "Add.\n\nTwice.", "input": "1 {n}\n\n2"}
    assert value("{instruction}\n\nInput:\n{input?}", row) == "Add.\n\nTwice.\n\nInput:\n1 {n}\n\n2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("absent", "f:1: no column `absent`; the row has `instruction`, `input`, `n`"),
        ("{absent} x", "f:1: no column `absent`"),
        ("input", "f:1: column `input` is empty; where it may be, the mapping says `input?`"),
        ("info.absent", "f:1: no column `info.absent`"),
        ("n.x", "f:1: no column `n.x`"),
        ("answers.7.text", "f:1: no column `answers.7.text`"),
        ("{info}", "f:1: column `info` is {'post': 'P', 'tags': ['x', 'y']}; inside text only text and finite numbers"),
    ],
)
def test_rows_that_do_not_fit(text: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        value(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "map is ''; expected a column"),
        (3, "map is 3; expected a column"),
        ({"a": None}, "map is {'a': None}; expected a column, or text with {columns} in quotes"),
        ("{a", "has a brace without a column; write {{ for a brace itself"),
        ("a}", "has a brace without a column"),
        ("{}", "has a brace without a column"),
        ("{ ?}", "has a brace without a column"),
        ("{{x}}", "has no column in it"),
    ],
)
def test_templates_that_do_not_parse(text: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Template.parse(text, "map")
    assert words in str(caught.value)
