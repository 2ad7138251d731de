"""HH transcripts."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.data.formats import recognise
from rlhf_pipeline.data.formats.hh import convert, matches
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Prompt, Ranking, Record

ROW = {
    "chosen": "\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: A list\n\nof two?\n\nAssistant:  One.\n\nTwo. ",
    "rejected": "\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: A list\n\nof two?\n\nAssistant: No.",
}
SHARED = [
    {"role": "user", "content": "Hi!"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "A list\n\nof two?"},
]


def test_a_pair_shares_its_prompt() -> None:
    assert matches(ROW)
    assert list(convert(ROW, Ranking, "f:1")) == [Ranking(SHARED, ["One.\n\nTwo.", "No."], [0, 1])]
    assert list(convert(ROW | {"id": "7"}, Prompt, "f:1")) == [Prompt(SHARED, id="7")]


def test_the_first_blank_line_may_be_stripped() -> None:
    stripped = {name: text.strip() for name, text in ROW.items()}
    assert recognise(stripped).name == "hh"
    assert list(convert(stripped, Ranking, "f:1")) == list(convert(ROW, Ranking, "f:1"))
    assert not matches({"chosen": "Human: the word.", "rejected": "Human: another."}), "no dialogue"


def test_other_rows_are_not_taken_for_transcripts() -> None:
    assert not matches({"chosen": "a", "rejected": "b"})
    assert not matches({"chosen": ROW["chosen"]})


BAD: list[tuple[dict[str, Any], type[Record], str]] = [
    (
        ROW | {"rejected": "\n\nHuman: Hi!\n\nAssistant: "},
        Ranking,
        "`chosen` and `rejected` part before the last answer",
    ),
    (
        {"chosen": "\n\nHuman: Hi!\n\nAssistant: ", "rejected": "\n\nHuman: Hi!\n\nAssistant: x"},
        Ranking,
        "`chosen` is empty",
    ),
    (ROW | {"rejected": ROW["chosen"]}, Ranking, "`chosen` and `rejected` are the same text"),
    (ROW | {"rejected": "Hello"}, Ranking, "`rejected` is 'Hello'; expected a transcript that begins with"),
    (ROW | {"rejected": "\n\nHuman: Hi!"}, Ranking, "`rejected` does not end with an answer of the assistant"),
]


@pytest.mark.parametrize(("row", "kind", "words"), BAD)
def test_rows_that_do_not_fit(row: dict[str, Any], kind: type[Record], words: str) -> None:
    with pytest.raises(DataError) as caught:
        list(convert(row, kind, "f:1"))
    assert words in str(caught.value)
    assert str(caught.value).startswith("f:1: ")
