"""Records: what is refused, with which words, and what survives the way to JSON and back."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import (
    Demonstration,
    Document,
    Prompt,
    Ranking,
    Record,
    canonical,
    completion_text,
    fingerprint,
)

ASK = [{"role": "user", "content": "Why?"}]
ANSWER = [{"role": "assistant", "content": "Because."}]

GOOD: list[Record] = [
    Demonstration("Why?", " Because.", user="ana", source="own", id="d1"),
    Demonstration(ASK, ANSWER),
    Ranking("Why?", ["a", "b", "c"], [0, 1, 0], finished=[True, False, True], labeler="l1"),
    Prompt(ASK, facts={"answer": 42, "list": [1, None]}),
    Document("Once upon a time."),
]


@pytest.mark.parametrize("record", GOOD, ids=lambda record: type(record).__name__)
def test_json_and_back_changes_nothing(record: Record) -> None:
    row = json.loads(json.dumps(record.to_dict()))
    assert type(record).from_dict(row, "here") == record


def test_to_dict_leaves_out_what_says_nothing() -> None:
    assert Prompt("Why?").to_dict() == {"prompt": "Why?"}


BAD: list[tuple[type[Record], dict[str, Any], str]] = [
    (Demonstration, {"prompt": "Why?"}, "no field `completion`; the row has `prompt`; a demonstration needs"),
    (Demonstration, {}, "no field `prompt`; the row has no fields; a demonstration needs"),
    (Demonstration, {"prompt": "Why?", "completion": " \n"}, "`completion` is empty"),
    (Demonstration, {"prompt": "", "completion": "x"}, "`prompt` is empty"),
    (Demonstration, {"prompt": 7, "completion": "x"}, "`prompt` is 7; expected a string"),
    (Demonstration, {"prompt": "Why?", "completion": []}, "`completion` has no messages"),
    (Demonstration, {"prompt": [*ASK, *ANSWER], "completion": "x"}, "`prompt` ends with an assistant message"),
    (Demonstration, {"prompt": ASK, "completion": ASK}, "`completion` must begin and end with an assistant message"),
    (Demonstration, {"prompt": ["Why?"], "completion": "x"}, "`prompt[0]` is 'Why?'; expected an object with `role`"),
    (Demonstration, {"prompt": [{"role": "human", "content": "x"}], "completion": "x"}, "`prompt[0].role` is 'human'"),
    (Demonstration, {"prompt": [{"role": "user", "content": None}], "completion": "x"}, "`prompt[0].content` is None"),
    (Demonstration, {"prompt": ASK, "completion": [ANSWER[0] | {"tool_calls": [{}]}]}, "`completion[0]` calls tools"),
    (Demonstration, {"prompt": "\ud800", "completion": "x"}, "`prompt` is not valid UTF-8 at character 0"),
    (Demonstration, {"prompt": "Why?", "completion": "x", "user": 1.5}, "`user` is 1.5; expected a string"),
    (Ranking, {"prompt": "Why?", "completions": ["a"], "ranks": [0]}, "1 completions; a ranking has 2 to 9"),
    (Ranking, {"prompt": "Why?", "completions": list("abcdefghij"), "ranks": [0] * 10}, "10 completions; a ranking"),
    (Ranking, {"prompt": "Why?", "completions": ["a", "b"], "ranks": [0]}, "2 completions but 1 `ranks`"),
    (
        Ranking,
        {"prompt": "Why?", "completions": ["a", "b"], "ranks": [0, 1.0]},
        "`ranks` is [0, 1.0]; expected a list of",
    ),
    (Ranking, {"prompt": "Why?", "completions": ["a", "b"], "ranks": [False, True]}, "expected a list of int"),
    (Ranking, {"prompt": "Why?", "completions": ["a", "b"], "ranks": [-1, 0]}, "ranks count from 0, the best"),
    (Ranking, {"prompt": "Why?", "completions": "ab", "ranks": [0, 1]}, "`completions` is 'ab'; expected a list"),
    (Ranking, {"prompt": "Why?", "completions": ["a", ""], "ranks": [0, 1]}, "`completions[1]` is empty"),
    (Ranking, {"prompt": "Why?", "completions": ["a", "a"], "ranks": [0, 1]}, "all 2 completions are the same text"),
    (
        Ranking,
        {"prompt": "Why?", "completions": ["a", "b"], "ranks": [0, 1], "finished": [True]},
        "2 completions but 1 `finished`",
    ),
    (
        Ranking,
        {"prompt": "Why?", "completions": ["a", ""], "ranks": [0, 1], "finished": [True, False]},
        "`completions[1]` is empty",
    ),
    (Ranking, {"prompt": "Why?", "completions": ["a", "b"], "ranks": [0, 1], "labeler": []}, "`labeler` is []"),
    (Prompt, {"prompt": "Why?", "facts": "x"}, "`facts` is 'x'; expected an object"),
    (Prompt, {"prompt": "Why?", "day": datetime.date(2026, 1, 1)}, "`day` cannot be kept as a fact"),
    (Document, {"text": ["x"]}, "`text` is ['x']; expected a string"),
]


@pytest.mark.parametrize(("kind", "row", "words"), BAD, ids=[f"{k.__name__}-{w[:40]}" for k, _, w in BAD])
def test_a_bad_row_is_refused_in_one_line_that_names_the_place(
    kind: type[Record], row: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError) as caught:
        kind.from_dict(row, "rows.jsonl:3")
    message = str(caught.value)
    assert message.startswith("rows.jsonl:3: ")
    assert words in message
    assert "\n" not in message


def test_an_empty_completion_that_ended_by_itself_is_a_sample() -> None:
    row = {"prompt": "Why?", "completions": ["a", ""], "ranks": [0, 1], "finished": [True, True]}
    assert Ranking.from_dict(row, "here").completions == ["a", ""]


def test_the_same_text_cut_off_and_finished_can_be_compared() -> None:
    row = {"prompt": "Why?", "completions": ["a", "a"], "ranks": [0, 1], "finished": [True, False]}
    assert Ranking.from_dict(row, "here").finished == [True, False]


def test_unknown_columns_are_facts_of_a_prompt_and_ignored_elsewhere() -> None:
    assert Prompt.from_dict({"prompt": "Why?", "answer": "x", "facts": {"b": 1}}, "here").facts == {
        "answer": "x",
        "b": 1,
    }
    assert Document.from_dict({"text": "x", "answer": "y"}, "here") == Document("x")


def test_of_a_message_role_and_content_are_read() -> None:
    more = {"name": "\ud800", "sent": datetime.datetime(2024, 1, 1)}
    ask, answers = [ASK[0] | more], [[ANSWER[0] | more], [ANSWER[0] | {"content": "So."}]]
    ranked = Ranking.from_dict({"prompt": ask, "completions": answers, "ranks": [0, 1]}, "here")
    assert ranked == Ranking(ASK, [ANSWER, [{"role": "assistant", "content": "So."}]], [0, 1])
    assert Demonstration.from_dict({"prompt": ask, "completion": answers[0]}, "here") == Demonstration(ASK, ANSWER)
    facts = {"role": "judge", "content": "strict", "since": 2024}
    assert Prompt.from_dict({"prompt": ask, "facts": facts}, "here") == Prompt(ASK, facts=facts)


def test_whole_numbers_become_names() -> None:
    assert Document.from_dict({"text": "x", "id": 7, "user": 8}, "here") == Document("x", id="7", user="8")


def test_completion_text_of_messages() -> None:
    assert completion_text("x") == "x"
    assert completion_text([*ANSWER, *ASK, *ANSWER]) == "Because.\n\nWhy?\n\nBecause."


def test_canonical_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": [1, "é"]}) == canonical({"a": [1, "é"], "b": 1}) == '{"a":[1,"\\u00e9"],"b":1}'


def test_fingerprint_depends_on_content_order_and_kind_alone() -> None:
    one, two = Demonstration("a", "b"), Demonstration("c", "d")
    assert fingerprint([one, two]) == fingerprint([Demonstration("a", "b"), Demonstration("c", "d")])
    assert fingerprint([one, two]) != fingerprint([two, one])
    assert fingerprint([one]) != fingerprint([Demonstration("a", "b", user="ana")])
    assert fingerprint([Prompt("a")]) != fingerprint([Document("a")])
    assert fingerprint([]) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
