"""Mappings: anybody's columns, and the ready-made ones on rows as they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.data.formats import MAPPINGS, named, recognise
from rlhf_pipeline.data.mapping import ColumnMap
from rlhf_pipeline.data.sources import read
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record

DATA = Path(__file__).parents[2] / "data"


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def records(
    columns: dict[str, Any], row: dict[str, Any], kind: type[Record], each: str | None = None, chat: bool = False
) -> list[Record | str]:
    return list(ColumnMap.parse(columns, "m.yaml:2", each, chat).convert(row, kind, "f:1"))


ABC = {"q": "Q", "a": "A", "b": "B", "c": "C", "who": 7}
CASES: list[tuple[dict[str, Any], dict[str, Any], Record]] = [
    ({"prompt": "q", "completion": "a", "user": "who"}, ABC, Demonstration("Q", "A", user="7")),
    ({"prompt": "q", "completion": "a", "user": "absent?"}, ABC, Demonstration("Q", "A")),
    ({"prompt": "{q}!", "completion": " {a}"}, ABC, Demonstration("Q!", " A")),
    ({"messages": "m"}, {"m": [*user("Q"), {"role": "assistant", "content": "A"}]}, Demonstration(user("Q"), "A")),
    (
        {"prompt": "q", "chosen": "a", "rejected": "b", "labeler": "who"},
        ABC,
        Ranking("Q", ["A", "B"], [0, 1], labeler="7"),
    ),
    (
        {"prompt": "q", "completions": ["a", "b", "c"], "ranks": ["x", "y", "z"]},
        ABC | {"x": 2, "y": 0, "z": 0},
        Ranking("Q", ["A", "B", "C"], [2, 0, 0]),
    ),
    (
        {"prompt": "q", "completions": "l.text", "scores": "l.score"},
        {"q": "Q", "l": [{"text": "A", "score": 1}, {"text": "B", "score": 3.5}, {"text": "C", "score": 1}]},
        Ranking("Q", ["A", "B", "C"], [1, 0, 1], scores=[1, 3.5, 1]),
    ),
    (
        {"prompt": "q", "completions": ["a", "b", "c"], "best": "p"},
        ABC | {"p": 1},
        Ranking("Q", ["A", "B", "C"], [1, 0, 1]),
    ),
    ({"prompt": "q", "completions": ["a", "b"], "best": "p"}, ABC | {"p": "1"}, Ranking("Q", ["A", "B"], [1, 0])),
    ({"prompt": "q", "completions": ["a", "b"], "best": "p"}, ABC | {"p": "a"}, Ranking("Q", ["A", "B"], [0, 1])),
    ({"prompt": "q", "facts": {"answer": "a"}}, ABC, Prompt("Q", facts={"answer": "A"})),
    ({"prompt": "q", "completion": "a"}, ABC, Prompt("Q")),
    ({"text": "{q} {a}"}, ABC, Document("Q A")),
]


@pytest.mark.parametrize(("columns", "row", "record"), CASES)
def test_rows_become_records(columns: dict[str, Any], row: dict[str, Any], record: Record) -> None:
    assert records(columns, row, type(record)) == [record]


def test_numbers_of_a_csv_are_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("q,a,b,c,x,y,z\nQ,A,B,C,5,-1.5,+1e2\nQ,A,B,C, 2 ,0,1.0\n")
    columns = "prompt: q, completions: [a, b, c]"

    def read_by(order: str) -> list[Ranking]:
        text = f"data: {tmp_path}/rows.csv\ncolumns: {{{columns}, {order}}}\n"
        (tmp_path / "rows.yaml").write_text(text)
        return read(str(tmp_path / "rows.yaml"), Ranking, on_bad_row="skip").records

    scored = read_by("scores: [x, y, z]")
    assert [(one.scores, one.ranks) for one in scored] == [([5, -1.5, 100], [1, 2, 0]), ([2, 0, 1], [0, 2, 1])]
    assert [one.ranks for one in read_by("ranks: [x, y, z]")] == [[2, 0, 1]]
    assert [one.ranks for one in read_by("best: x")] == [[1, 1, 0]]


@pytest.mark.parametrize("text", ["", "1_0", "nan", "inf", "1e999", "0x1", "1,5", "five", "١"])
def test_text_that_is_no_number_is_no_score(text: str) -> None:
    columns = {"prompt": "q", "completions": ["a", "b"], "scores": ["x", "y"]}
    with pytest.raises(DataError, match="f:1: (`scores` is|column `x` is empty)"):
        records(columns, ABC | {"x": text, "y": "1"}, Ranking)


def test_a_prompt_that_is_text_becomes_a_message_of_the_user() -> None:
    columns = {"prompt": "q", "completion": "a"}
    assert records(columns, ABC, Demonstration, chat=True) == [Demonstration(user("Q"), "A")]
    given = [{"role": "system", "content": "S"}, *user("Q")]
    assert records(columns, ABC | {"q": given}, Demonstration, chat=True) == [Demonstration(given, "A")]


def test_every_element_of_a_list_is_a_record() -> None:
    columns = {"prompt": "{q} {l.x?}", "completion": "l.y"}
    row = {"q": "Q", "l": [{"x": "1", "y": "A"}, {"x": "2", "y": "B"}]}
    assert records(columns, row, Demonstration, each="l") == [Demonstration("Q 1", "A"), Demonstration("Q 2", "B")]
    assert records(columns, {"q": "Q", "l": []}, Demonstration, each="l") == ["an empty list of l"]
    with pytest.raises(DataError, match=r"f:1: l\[1\]: no column `l.y`"):
        records(columns, {"q": "Q", "l": [{"x": "1", "y": "A"}, {"x": "2"}]}, Demonstration, each="l")
    with pytest.raises(DataError, match="f:1: `l` is 5; expected a list, as the mapping says `each`"):
        records(columns, {"q": "Q", "l": 5}, Demonstration, each="l")


PAIR = {"prompt": "q", "completions": ["a", "b"], "best": "p"}


@pytest.mark.parametrize(
    ("columns", "row", "words"),
    [
        (PAIR, ABC | {"p": 2}, "f:1: the best is 2; expected 0 to 1, or one of a, b"),
        (PAIR, ABC | {"p": True}, "f:1: the best is True; expected 0 to 1"),
        (PAIR, ABC | {"p": "tie"}, "f:1: the best is 'tie'; expected"),
        (PAIR | {"completions": "a"}, ABC | {"p": 0}, "f:1: `completions` is 'A'; expected a list of texts"),
        (
            {"prompt": "q", "completions": ["a", "b"], "scores": "p"},
            ABC | {"p": ["1", "two"]},
            "expected a list of finite",
        ),
        ({"prompt": "q", "completions": ["a", "b"], "ranks": "p"}, ABC | {"p": [1.0, 0.0]}, "expected a list of int"),
    ],
)
def test_rows_that_do_not_fit(columns: dict[str, Any], row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        records(columns, row, Ranking)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"promt": "q"}, "m.yaml:2: `promt` is not a field of a record; did you mean `prompt`?"),
        ({"zzz": "q"}, "m.yaml:2: `zzz` is not a field of a record; expected some of prompt, completion"),
        (
            {"completion": "q"},
            "m.yaml:2: completion do not make a record; expected one of: messages; prompt, completion",
        ),
        ({"prompt": "q", "completions": ["a", "b"]}, "prompt, completions do not make a record"),
        ({"prompt": ["q"]}, "m.yaml:2: `prompt` is ['q']; expected a column"),
        ({"prompt": "q", "facts": "a"}, "`facts` is 'a'; expected names and their columns"),
        ({}, "m.yaml:2: nothing do not make a record"),
    ],
)
def test_mappings_that_do_not_parse(columns: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ColumnMap.parse(columns, "m.yaml:2")
    assert words in str(caught.value)


def test_alpaca() -> None:
    rows = read(str(DATA / "instructions-alpaca.json"), Demonstration, data_format="alpaca").records
    assert rows[0] == Demonstration(user("Name a fruit that is yellow."), "A lemon.")
    assert rows[1].prompt == user("Turn the sentence into a question.\n\nThe shop opens at nine.")


def test_dolly_puts_the_context_first() -> None:
    rows = read(str(DATA / "instructions-dolly.jsonl"), Demonstration, data_format="dolly").records
    context = "The library is open from ten to six, on Fridays from ten to four."
    assert rows[0].prompt == user("Which of these are birds?")
    assert rows[1].prompt == user(f"{context}\n\nWhen does the library close on Fridays?")


def test_self_instruct_gives_a_record_for_each_instance() -> None:
    rows = read(str(DATA / "tasks-self-instruct.jsonl"), Demonstration, data_format="self-instruct")
    assert [(row.id, row.completion) for row in rows.records][:3] == [
        ("own_task_0", "short"),
        ("own_task_0", "quiet"),
        ("own_task_1", "Tent, mat, sleeping bag, torch, water, and something dry for the morning."),
    ]
    assert [place.rpartition(":")[2] for place in rows.places] == ["1", "1", "2", "3", "3"]


def test_saferlhf_has_two_preferences() -> None:
    better, safer = (
        [row.ranks for row in read(str(DATA / "preferences-pku-saferlhf.jsonl"), Ranking, data_format=name).records]
        for name in ("pku-saferlhf-better", "pku-saferlhf-safer")
    )
    assert (better, safer) == ([[0, 1], [1, 0], [0, 1]], [[0, 1], [0, 1], [1, 0]])


def test_a_field_that_no_column_fills_is_named() -> None:
    with pytest.raises(DataError, match="f:1: no column says anything for `prompt`; the row has `a`, `i`"):
        records({"prompt": "{i?}", "completion": "a"}, {"a": "A", "i": " "}, Demonstration)


def test_every_ready_made_mapping_parses() -> None:
    assert {named(name).name for name in MAPPINGS} == set(MAPPINGS)  # type: ignore[union-attr]
    assert len(MAPPINGS) == 5


def test_mappings_are_recognised_where_one_fits() -> None:
    assert recognise({"instruction": "I", "output": "O"}).name == "alpaca"
    assert recognise({"instruction": "I", "response": "O"}).name == "dolly"
    assert recognise({"instruction": "I", "instances": []}).name == "self-instruct"
    assert recognise({"instruction": "I", "output": "O", "prompt": "P", "completion": "C"}).name == "trl"
    pair = {"prompt": "P", "response_0": "A", "response_1": "B", "better_response_id": 0, "safer_response_id": 1}
    with pytest.raises(ConfigError, match="f:1: fits the mappings pku-saferlhf-better and pku-saferlhf-safer; choose"):
        recognise(pair, "f:1")


def test_a_mapping_refuses_what_it_has_not() -> None:
    with pytest.raises(ConfigError, match="data of format alpaca gives demonstrations, prompts, no rankings"):
        read(str(DATA / "instructions-alpaca.json"), Ranking, data_format="alpaca")
