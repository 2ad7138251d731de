"""Personal data: every kind is found, and none of the decoys."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from rlhf_pipeline.data.curation.personal_data import PersonalData
from rlhf_pipeline.errors import ConfigError
from tests.data.curation.personal import DECOYS, MISSED, MISTAKEN, WITH

DATA = PersonalData()


@pytest.mark.parametrize(("text", "expected"), WITH)
def test_what_is_personal_is_found(text: str, expected: dict[str, str]) -> None:
    assert {text[f.start : f.end]: f.kind for f in DATA.find(text)} == expected


@pytest.mark.parametrize("text", DECOYS)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert DATA.find(text) == []


def test_known_mistakes_are_still_made() -> None:
    """Documented limits; whoever lifts one moves its line to the other lists."""
    for text, found in MISTAKEN:
        assert [text[f.start : f.end] for f in DATA.find(text)] == [found]
    assert [text for text in MISSED if DATA.find(text)] == []


@pytest.mark.parametrize("filler", ["%20", "x", "a.", "a-", "@", "@a.", "x@y "])
def test_long_words_take_no_time(filler: str) -> None:
    """Less than a second; minutes, if every place in a word were a place to begin an address."""
    began = time.process_time()
    text = filler * 50_000 + " or jo@x.io"
    assert [(f.kind, text[f.start : f.end]) for f in DATA.find(text)] == [("EMAIL", "jo@x.io")]
    assert time.process_time() - began < 10


def test_very_many_findings_take_no_time() -> None:
    began, counts = time.process_time(), Counter[str]()
    assert DATA.redacted("jo@x.io 9.9.9.9 " * 20_000, counts) == "[EMAIL] [IP] " * 20_000
    assert counts == {"EMAIL": 20_000, "IP": 20_000}
    assert time.process_time() - began < 20


def test_an_address_at_the_end_of_a_long_word_is_found() -> None:
    url = "https://x.io/?text=" + "long%20" * 50 + "%3Cjo@x.io"
    assert DATA.redacted(url, Counter()) == url[: -len("@x.io") - 64] + "[EMAIL]"


def test_findings_are_replaced_and_counted() -> None:
    counts: Counter[str] = Counter()
    text = "a@b.io, c@d.io and 8.8.8.8."
    assert DATA.redacted(text, counts) == "[EMAIL], [EMAIL] and [IP]."
    assert counts == {"EMAIL": 2, "IP": 1}
    assert DATA.redacted("[EMAIL] and [IP]", counts) == "[EMAIL] and [IP]"


def test_numbers_of_other_countries_need_their_region() -> None:
    text = "Ruf an: 030 901820"
    assert DATA.find(text) == []
    assert [finding.kind for finding in PersonalData(["US", "DE"]).find(text)] == ["PHONE"]
    assert PersonalData([]).find("Call 415-555-2671") == []
    with pytest.raises(ConfigError, match="--phone_regions: `UK` is no country code"):
        PersonalData(["UK"])
