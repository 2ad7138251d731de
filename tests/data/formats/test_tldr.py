"""TL;DR posts and comparisons."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.data.formats.tldr import convert, matches
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Demonstration, Prompt, Ranking, Record

POST = {"id": "p1", "post": "It rained.", "title": "Rain", "subreddit": "weather"}
COMPARISON = {"info": POST, "summaries": [{"text": " Wet "}, {"text": "Dry"}], "choice": 1, "worker": "w"}
PROMPT = "SUBREDDIT: r/weather\n\nTITLE: Rain\n\nPOST: It rained.\n\nTL;DR:"


def test_a_comparison() -> None:
    assert matches(COMPARISON)
    assert list(convert(COMPARISON, Ranking, "f:1")) == [
        Ranking(PROMPT, [" Dry", " Wet"], [0, 1], labeler="w", id="p1")
    ]
    assert list(convert(COMPARISON, Prompt, "f:1")) == [Prompt(PROMPT, id="p1")]


def test_a_post_with_its_summary() -> None:
    row = POST | {"summary": "Wet."}
    assert matches(row)
    assert list(convert(row, Demonstration, "f:1")) == [Demonstration(PROMPT, " Wet.", id="p1")]


def test_a_post_without_a_title() -> None:
    (record,) = convert(POST | {"title": None, "summary": "Wet."}, Prompt, "f:1")
    assert isinstance(record, Prompt)
    assert record.prompt == PROMPT.replace("TITLE: Rain", "TITLE: ")


BAD: list[tuple[dict[str, Any], type[Record], str]] = [
    (COMPARISON | {"choice": 2}, Ranking, "expected two `summaries` and a `choice` of 0 or 1"),
    (COMPARISON | {"summaries": [{"text": "x"}]}, Ranking, "expected two `summaries` and a `choice` of 0 or 1"),
    (COMPARISON | {"summaries": [{"text": "x"}, {}]}, Ranking, "expected objects with `text`"),
    (COMPARISON | {"summaries": [{"text": "x"}, {"text": ""}]}, Ranking, "`chosen` is empty"),
    (COMPARISON | {"summaries": [{"text": "x"}] * 2}, Ranking, "`chosen` and `rejected` are the same text"),
    (COMPARISON | {"info": {"article": "News."}}, Ranking, "f:1: `post` of the post is None; expected a text"),
    (COMPARISON | {"info": POST | {"subreddit": " "}}, Ranking, "f:1: `subreddit` of the post is ' '; expected a text"),
    (COMPARISON | {"info": POST | {"title": 5}}, Ranking, "f:1: `title` of the post is 5; expected a text"),
    (COMPARISON | {"info": "News."}, Ranking, "`info` is 'News.'; expected an object with `post` and `subreddit`"),
    (
        COMPARISON,
        Demonstration,
        "a row of format tldr with `info`, `summaries`, `choice`, `worker` is no demonstration",
    ),
]


@pytest.mark.parametrize(("row", "kind", "words"), BAD)
def test_rows_that_do_not_fit(row: dict[str, Any], kind: type[Record], words: str) -> None:
    with pytest.raises(DataError) as caught:
        list(convert(row, kind, "f:1"))
    assert words in str(caught.value)
    assert str(caught.value).startswith("f:1: ")
