"""Rows made ready for a trainer: ids by hand, splits by prompt, and every row accounted for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import BloomConfig

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.data.sources import BadRow, Rows
from rlhf_pipeline.data.splits import by_prompt
from rlhf_pipeline.errors import DataError, ModelError
from rlhf_pipeline.jobs import Job, StageSettings
from rlhf_pipeline.prepared import (
    demonstration_encoder,
    document_encoder,
    prepare,
    ranking_encoder,
    report,
    room,
    with_margins,
)
from rlhf_pipeline.records import Demonstration, Document, Ranking
from tests.tiny import ARCHITECTURES, make_causal, make_tokenizer

EOS, IGNORED = 1, -100
A, B, C = 66, 67, 68


def rows(records: list[Any], bad: list[BadRow] | None = None, dropped: dict[str, int] | None = None) -> Rows[Any]:
    places = [f"x.jsonl:{line}" for line in range(1, len(records) + 1)]
    return Rows(records, places, bad or [], dropped or {})


def demonstrations(*prompts: str) -> Rows[Any]:
    return rows([Demonstration(prompt, "b") for prompt in prompts])


def test_demonstration_is_learnt_from_its_completion_on() -> None:
    encode = demonstration_encoder(make_tokenizer(), 10, "error")
    assert encode(Demonstration("a", "bc"), "x:1") == [
        {"input_ids": [A, B, C, EOS], "labels": [IGNORED, B, C, EOS]},
    ]
    everything = demonstration_encoder(make_tokenizer(), 10, "error", completion_only=False)
    assert everything(Demonstration("a", "bc"), "x:1") == [{"input_ids": [A, B, C, EOS], "labels": [A, B, C, EOS]}]


def test_truncated_demonstration_keeps_its_completion() -> None:
    encode = demonstration_encoder(make_tokenizer(), 4, "truncate")
    assert encode(Demonstration("cba", "bc"), "x:1") == [{"input_ids": [A, B, C, EOS], "labels": [IGNORED, B, C, EOS]}]


def test_ranking_gives_one_group_with_every_pair_that_is_ordered() -> None:
    encode = ranking_encoder(make_tokenizer(), 10, "error")
    ranking = Ranking("a", ["b", "c", "cc"], [1, 0, 1], finished=[True, False, True])
    assert encode(ranking, "x:1") == [
        {
            "input_ids": [[A, C], [A, B, EOS], [A, C, C, EOS]],  # the first was cut off, so it has no EOS
            "better": [0, 0],
            "worse": [1, 2],
            "margin": [0.0, 0.0],
            "tied": [False, False],
            "length": 4,
        }
    ]
    assert encode(Ranking("a", ["b", "c"], [0, 0]), "x:1") == []


def test_ties_are_compared_where_they_are_modelled() -> None:
    encode = ranking_encoder(make_tokenizer(), 10, "error", ties="model")
    (group,) = encode(Ranking("a", ["b", "c", "cc", "c"], [1, 0, 1, 0]), "x:1")
    assert group["input_ids"] == [[A, C, EOS], [A, B, EOS], [A, C, C, EOS]]
    pairs = zip(group["better"], group["worse"], group["tied"], strict=True)
    assert list(pairs) == [(0, 1, False), (1, 2, True), (0, 1, False), (0, 2, False), (0, 2, False)]
    assert encode(Ranking("a", ["b", "c"], [0, 0]), "x:1") != []


def test_completion_given_twice_is_one_row_of_two_comparisons() -> None:
    encode = ranking_encoder(make_tokenizer(), 10, "error")
    (group,) = encode(Ranking("a", ["b", "c", "b"], [0, 1, 2]), "x:1")
    assert group["input_ids"] == [[A, B, EOS], [A, C, EOS]]
    assert (group["better"], group["worse"]) == ([0, 1], [1, 0])  # the labeller contradicts herself


def test_margins_are_differences_of_scores() -> None:
    encode = ranking_encoder(make_tokenizer(), 10, "error", ties="model", use_margins=True)
    (group,) = encode(Ranking("a", ["b", "c", "cc"], [1, 0, 1], scores=[2.5, 4.0, 2.0]), "x:1")
    assert group["margin"] == [1.5, 0.0, 2.0]
    assert group["tied"] == [False, True, False]
    with pytest.raises(DataError, match="^x:1: no `scores`.*leave `use_margins` out"):
        encode(Ranking("a", ["b", "c"], [0, 1]), "x:1")


def test_scores_that_contradict_the_ranks_are_refused() -> None:
    encode = ranking_encoder(make_tokenizer(), 10, "error", use_margins=True)
    with pytest.raises(DataError, match=r"^x:1: completion 1 is ranked above completion 0, but `scores` say 1 and 2;"):
        encode(Ranking("a", ["b", "c"], [1, 0], scores=[2, 1]), "x:1")
    bad = rows([Ranking("a", ["b", "c"], [1, 0], scores=[2, 1])])
    with pytest.raises(DataError, match="x.jsonl:1 and what follows: no row gives margins; leave `use_margins` out"):
        with_margins(bad, "skip", "skip")


def test_texts_of_equal_ids_are_not_compared_but_counted() -> None:
    tokenizer, left_out = make_tokenizer(), Counter[str]()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}"
    ranking = Ranking([{"role": "user", "content": "a"}], ["b", "b ", "c"], [0, 1, 2])
    (group,) = ranking_encoder(tokenizer, 10, "error", left_out=left_out)(ranking, "x:1")
    assert group["input_ids"] == [[A, B, EOS], [A, C, EOS]]
    assert (group["better"], group["worse"], left_out) == ([0, 0], [1, 1], {"same tokens": 1})
    only = Ranking([{"role": "user", "content": "a"}], ["b", "b "], [0, 1])
    assert ranking_encoder(tokenizer, 10, "error", ties="model")(only, "x:1") == []


def test_completions_of_a_truncated_ranking_share_one_prompt() -> None:
    encode = ranking_encoder(make_tokenizer(), 5, "truncate")
    (group,) = encode(Ranking("cccba", ["b", "cc"], [0, 1]), "x:1")
    assert group["input_ids"] == [[B, A, B, EOS], [B, A, C, C, EOS]]


def test_document_ends_with_eos() -> None:
    assert document_encoder(make_tokenizer())(Document("abc"), "x:1") == [{"input_ids": [A, B, C, EOS]}]


def test_every_row_is_trained_on_held_out_or_long() -> None:
    encode = demonstration_encoder(make_tokenizer(), 6, "skip")
    data = demonstrations(*"abcdefgh", "too long")
    prepared = prepare(data, encode, eval_fraction=0.25, seed=0)
    assert (len(prepared.train) + len(prepared.held_out), len(prepared.long)) == (8, 1)
    assert prepared.train and prepared.held_out
    assert [str(row) for row in prepared.long] == ["x.jsonl:9: 10 tokens, more than the 6 that fit"]
    first = {example["input_ids"][0] for example in prepared.train}
    held = {example["input_ids"][0] for example in prepared.held_out}
    assert first | held == set(range(A, A + 8)) and not first & held
    assert [len(record.prompt) for record in prepared.held_out_records] == [1] * len(prepared.held_out)


def test_one_prompt_is_on_one_side() -> None:
    """Ten rankings of each of four prompts: every ranking of a prompt is on the side of that prompt."""
    rankings = rows([Ranking(prompt, ["a", str(i)], [0, 1]) for i in range(10) for prompt in "abcd"])
    prepared = prepare(rankings, ranking_encoder(make_tokenizer(), 10, "error"), eval_fraction=0.25, seed=3)
    train = {example["input_ids"][0][0] for example in prepared.train}
    held = {example["input_ids"][0][0] for example in prepared.held_out}
    assert (len(train), len(held), len(prepared.train), len(prepared.held_out)) == (3, 1, 30, 10)
    assert not train & held


def test_nothing_is_held_out_where_nothing_should_be() -> None:
    prepared = prepare(
        demonstrations("a"), demonstration_encoder(make_tokenizer(), 9, "error"), eval_fraction=0, seed=0
    )
    assert len(prepared.train) == 1 and prepared.held_out == []


def test_what_cannot_be_prepared() -> None:
    encode = demonstration_encoder(make_tokenizer(), 5, "skip")
    with pytest.raises(DataError, match="x.jsonl:1: 1 different prompt in 2 rows.*--eval_fraction 0"):
        prepare(demonstrations("a", "a"), encode, eval_fraction=0.5, seed=0)
    with pytest.raises(DataError, match=r"no row is left to train on \(2 too long\); .*--on_long_row truncate"):
        prepare(demonstrations("too long", "also too long"), encode, eval_fraction=0, seed=0)
    tied = rows([Ranking("a", ["b", "c"], [0, 0])])
    with pytest.raises(DataError, match="x.jsonl:1 .*pass rankings whose ranks do not all tie"):
        prepare(tied, ranking_encoder(make_tokenizer(), 10, "error"), eval_fraction=0, seed=0)


def test_a_held_out_side_without_rows_is_refused() -> None:
    encode = demonstration_encoder(make_tokenizer(), 5, "skip")
    held = [record.prompt for record in by_prompt(demonstrations(*"abcdefgh").records, 0.25, seed=0)[1]]
    data = rows([Demonstration(letter, "b" * (9 if letter in held else 1)) for letter in "abcdefgh"])
    with pytest.raises(DataError, match=r"no row is left to hold out \(3 rows too long, 0 with nothing to compare"):
        prepare(data, encode, eval_fraction=0.25, seed=0)
    assert len(prepare(data, encode, eval_fraction=0, seed=0).train) == 5


def test_row_that_the_template_refuses_is_named() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    data = rows([Demonstration("a", "b"), Demonstration([{"role": "user", "content": "a"}], "b")])
    with pytest.raises(ModelError, match="^x.jsonl:2: the chat template refuses these messages"):
        prepare(data, demonstration_encoder(tokenizer, 9, "error"), eval_fraction=0, seed=0)


def test_report_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [BadRow("x.jsonl:9", "no field `prompt`", "{}")]
    data = rows(demonstrations("a", "b", "too long").records, bad, {"synthetic answer": 4})
    prepared = prepare(data, demonstration_encoder(make_tokenizer(), 5, "skip"), eval_fraction=0.4, seed=3)
    with Job("sft", Store(tmp_path), StageSettings(), {}, {}, {}).working() as job:
        counts = report(job, data, prepared)
    assert counts["rows_used"] == counts["train_examples"] + counts["held_out_examples"] == 2
    assert (counts["rows_bad"], counts["rows_long"], counts["rows_dropped_synthetic_answer"]) == (1, 1, 4)
    assert json.loads((job.directory / "bad_rows.jsonl").read_text())["where"] == "x.jsonl:9"
    assert json.loads((job.directory / "long_rows.jsonl").read_text()) == {
        "where": "x.jsonl:3",
        "tokens": 10,
        "limit": 5,
    }
    assert "sft: rows_used 2  rows_bad 1  rows_long 1" in capsys.readouterr().out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_room_is_what_the_model_holds(architecture: str, tmp_path: Path) -> None:
    config = make_causal(architecture, tmp_path).config  # 128 positions
    assert (room(config, None), room(config, 64), room(config, 1000)) == (128, 64, 128)


def test_room_of_a_model_without_positions() -> None:
    config = BloomConfig()  # positions by distance
    assert room(config, 64) == 64 and room(config, None) == 1 << 30
