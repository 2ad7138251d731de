"""TRL's columns and our own."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.data.formats.trl import convert
from rlhf_pipeline.data.splits import by_prompt
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record

SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Why?"}
YES = {"role": "assistant", "content": "Because."}
NO = {"role": "assistant", "content": "No idea."}


def one(row: dict[str, Any], kind: type[Record]) -> Record:
    (record,) = convert(row, kind, "f:1")
    return record


CASES: list[tuple[dict[str, Any], Record]] = [
    ({"prompt": "Why?", "completion": " So."}, Demonstration("Why?", " So.")),
    ({"prompt": [ASK], "completion": [YES]}, Demonstration([ASK], [YES])),
    ({"messages": [SYSTEM, ASK, YES]}, Demonstration([SYSTEM, ASK], "Because.")),
    ({"messages": [ASK, NO, ASK, YES], "user": "ana"}, Demonstration([ASK, NO, ASK], "Because.", user="ana")),
    ({"prompt": "Why?", "chosen": " So.", "rejected": " No."}, Ranking("Why?", [" So.", " No."], [0, 1])),
    ({"prompt": [ASK], "chosen": [YES], "rejected": [NO]}, Ranking([ASK], ["Because.", "No idea."], [0, 1])),
    ({"chosen": [ASK, YES], "rejected": [ASK, NO]}, Ranking([ASK], ["Because.", "No idea."], [0, 1])),
    (
        {"chosen": [ASK, NO, ASK, YES], "rejected": [ASK, NO, ASK, NO]},
        Ranking([ASK, NO, ASK], ["Because.", "No idea."], [0, 1]),
    ),
    # What both begin with can end in an answer; the pair then differs in what follows it.
    (
        {"chosen": [ASK, YES, ASK, YES], "rejected": [ASK, YES]},
        Ranking([ASK], [[YES, ASK, YES], "Because."], [0, 1]),
    ),
    # The prompt column repeats what the messages begin with (HuggingFaceH4/ultrafeedback_binarized).
    ({"prompt": "Why?", "chosen": [ASK, YES], "rejected": [ASK, NO]}, Ranking([ASK], ["Because.", "No idea."], [0, 1])),
    # The blank before the first difference belongs to the completions, as in TRL.
    (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        Ranking("The sky is", [" blue.", " green."], [0, 1]),
    ),
    (
        {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [0, 1, 1], "labeler": "l"},
        Ranking("p", ["a", "b", "c"], [0, 1, 1], labeler="l"),
    ),
    ({"prompt": "Why?", "answer": "42"}, Prompt("Why?", facts={"answer": "42"})),
    ({"messages": [ASK, YES], "answer": "42"}, Prompt([ASK], facts={"answer": "42"})),
    ({"messages": [SYSTEM, ASK]}, Prompt([SYSTEM, ASK])),
    ({"text": "Once."}, Document("Once.")),
    ({"prompt": "Why?", "completion": " So.", "label": True}, Demonstration("Why?", " So.")),
    ({"prompt": "Why?", "completion": " So.", "label": "True"}, Demonstration("Why?", " So.")),
    # A label that is no judgement is a column like any other.
    ({"prompt": "Why?", "completion": " So.", "label": "physics"}, Demonstration("Why?", " So.")),
    (
        {"prompt": "p", "completions": ["a", "b", "c"], "scores": [1, 2.5, 1]},
        Ranking("p", ["a", "b", "c"], [1, 0, 1], scores=[1, 2.5, 1]),
    ),
    (
        {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]},
        Prompt("p", facts={"completions": ["a", "b"], "labels": [True, False]}),
    ),
]


IMPLICIT: list[tuple[str, str, str]] = [
    # Texts that begin alike, and the prompt: up to the last border before they part.
    ("Who?\n\nA: He is.", "Who?\n\nA: He was.", "Who?\n\nA:"),
    ("Why? I think so.", "Why? I know not.", "Why?"),
    ('He said "Why?" Then he went.', 'He said "Why?" Then he left.', 'He said "Why?"'),
    ("Say why.\nI know.", "Say why.\nI do not.", "Say why.\n"),
    ("Why? Yes", "Why?\nNo", "Why?"),
    ("为什么？他是", "为什么？他不", "为什么？"),
    # A completion is never empty.
    ("Why? Yes.", "Why? Yes. Or no.", "Why?"),
    ("Hello there.", "Hello there. Friend.", "Hello"),
    # A label alone is no prompt, a word is not cut, and what has no border stays as TRL has it.
    ("Story 3: Tom went home.", "Story 3: Tom wept.", "Story 3: Tom"),
    ("a gray cat", "a grey cat", "a"),
    ("天空是蓝", "天空是绿", "天空是"),
]


@pytest.mark.parametrize(("chosen", "rejected", "prompt"), IMPLICIT)
def test_an_implicit_prompt_ends_at_a_border_and_the_texts_stay(chosen: str, rejected: str, prompt: str) -> None:
    record = one({"chosen": chosen, "rejected": rejected}, Ranking)
    assert isinstance(record, Ranking)
    assert record.prompt == prompt
    assert [f"{prompt}{completion}" for completion in record.completions] == [chosen, rejected]


def test_pairs_of_one_question_are_on_one_side() -> None:
    """Answers that begin alike once gave every pair another prompt, on either side of the split."""
    starts = ["I", "You", "We", "My"]
    rows = [
        {"chosen": f"Question {n}: why? {start} think so.", "rejected": f"Question {n}: why? {start} know not."}
        for n in range(40)
        for start in starts
    ]
    train, held = by_prompt([one(row, Ranking) for row in rows], 0.25, seed=0)
    asked = [{str(record.prompt).partition("?")[0] for record in side} for side in (train, held)]
    assert not asked[0] & asked[1]
    assert len(held) == len(starts) * len(asked[1]) and 0 < len(held) < 80


@pytest.mark.parametrize(("row", "record"), CASES)
def test_rows_become_records(row: dict[str, Any], record: Record) -> None:
    assert one(row, type(record)) == record


@pytest.mark.parametrize("label", [False, "false", "False"])
def test_a_completion_labelled_bad_is_no_demonstration(label: object) -> None:
    row = {"prompt": "Why?", "completion": " So.", "label": label}
    assert list(convert(row, Demonstration, "f:1")) == ["labelled as a bad completion"]


def test_pairs_give_prompts_too() -> None:
    prompt = one({"chosen": [ASK, YES], "rejected": [ASK, NO]}, Prompt)
    assert isinstance(prompt, Prompt)
    assert prompt.prompt == [ASK]


BAD: list[tuple[dict[str, Any], type[Record], str]] = [
    ({"messages": [ASK]}, Demonstration, "`messages` must hold a prompt and end with an assistant message"),
    ({"messages": [YES]}, Demonstration, "`messages` must hold a prompt and end with an assistant message"),
    ({"messages": "x"}, Demonstration, "`messages` is 'x'; expected a list of messages"),
    ({"messages": [{"from": "human"}]}, Demonstration, "`messages[0]` is {'from': 'human'}; expected an object with"),
    ({"messages": [ASK, YES | {"tool_calls": [1]}]}, Demonstration, "`completion[0]` calls tools"),
    ({"prompt": "p", "chosen": "a", "rejected": "a"}, Ranking, "`chosen` and `rejected` are the same text"),
    ({"chosen": [ASK, YES], "rejected": [ASK, YES]}, Ranking, "`chosen` and `rejected` are the same text"),
    ({"prompt": "p", "chosen": "a", "rejected": " "}, Ranking, "`rejected` is empty"),
    (
        {"prompt": "p", "chosen": "a"},
        Ranking,
        "no field `completions`; the row has `prompt`, `chosen`; a ranking needs",
    ),
    ({"chosen": "Yes.", "rejected": "No."}, Ranking, "share no beginning; put it into a column `prompt`"),
    ({"chosen": "Yes.", "rejected": [ASK, NO]}, Ranking, "expected two of a kind"),
    ({"prompt": "p", "completion": "c"}, Ranking, "no field `completions`; the row has `prompt`, `completion`"),
    ({"text": "x"}, Demonstration, "`text` does not say what is prompt and what completion; `rlhf pretrain` takes"),
    ({"prompt": "p", "completion": "c", "label": True}, Ranking, "(unpaired preference), which ranks nothing"),
    ({"prompt": "p", "completions": ["a", "b"], "labels": [True, False]}, Ranking, "(stepwise supervision)"),
    ({"prompt": "p", "completions": ["a", "b"], "labels": [True, False]}, Demonstration, "(stepwise supervision)"),
    ({"prompt": "p", "completions": ["a", "b"], "scores": [1, float("nan")]}, Ranking, "expected a list of finite"),
    ({"text": "x"}, Prompt, "no field `prompt`; the row has `text`; a prompt needs"),
    ({"prompt": "x"}, Document, "no field `text`; the row has `prompt`; a document needs"),
]


@pytest.mark.parametrize(("row", "kind", "words"), BAD)
def test_rows_that_do_not_fit(row: dict[str, Any], kind: type[Record], words: str) -> None:
    with pytest.raises(DataError) as caught:
        one(row, kind)
    assert str(caught.value).startswith("f:1: ")
    assert words in str(caught.value)
