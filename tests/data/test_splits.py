"""Splits by prompt: nothing on both sides, and the same choice whatever the order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhf_pipeline.data.splits import by_prompt, opening, position, split_keys
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Demonstration, Document, Prompt

RECORDS = [Demonstration(f"Question {n % 50}?", f" Answer {n}.") for n in range(200)]


def test_a_prompt_is_on_one_side_only() -> None:
    train, held = by_prompt(RECORDS, 0.1, seed=0)
    prompts = [{record.prompt for record in part} for part in (train, held)]  # type: ignore[misc]
    assert not prompts[0] & prompts[1]
    assert (len(prompts[1]), len(held), len(train)) == (3, 12, 188)


def test_both_sides_keep_the_order() -> None:
    train, held = by_prompt(RECORDS, 0.1, seed=0)
    assert train == [record for record in RECORDS if record in train]
    assert held == [record for record in RECORDS if record in held]


def test_the_choice_depends_on_neither_order_nor_repetition() -> None:
    _, held = by_prompt(RECORDS, 0.1, seed=0)
    _, again = by_prompt([*reversed(RECORDS), *RECORDS[:7]], 0.1, seed=0)
    assert {opening(record) for record in held} == {opening(record) for record in again}


def test_more_rows_move_none_of_the_old_ones() -> None:
    few, more = [Prompt(f"{n}") for n in range(40)], [Prompt(f"{n}") for n in range(-300, 340)]
    sides = [{record.prompt for record in part} for part in by_prompt(few, 0.2, seed=0)]
    grown = [{record.prompt for record in part} for part in by_prompt(more, 0.2, seed=0)]
    assert sides[0] < grown[0] and sides[1] < grown[1]


def test_the_share_held_out_is_the_fraction_give_or_take() -> None:
    """Three standard errors of a binomial: 3 * sqrt(.1 * .9 / 5000) = .013."""
    _, held = by_prompt([Prompt(f"{n}") for n in range(5000)], 0.1, seed=0)
    assert abs(len(held) / 5000 - 0.1) < 0.013


def test_a_position_is_a_share_of_the_hash() -> None:
    places = [position(str(n), seed=0) for n in range(200)]
    assert all(0 <= place < 1 for place in places) and len(set(places)) == 200
    assert position("1", seed=0) == pytest.approx(0x1E9987E9 / 2**32, abs=1e-9)


def test_the_choice_is_the_same_in_every_process() -> None:
    _, held = by_prompt([Prompt(f"{n}") for n in range(10)], 0.3, seed=0)
    assert [record.prompt for record in held] == ["1", "4", "6", "8", "9"]


def test_another_seed_chooses_others() -> None:
    assert by_prompt(RECORDS, 0.1, seed=0)[1] != by_prompt(RECORDS, 0.1, seed=1)[1]


def test_turns_of_one_conversation_stay_together() -> None:
    ask, answer = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
    system = {"role": "system", "content": "Be brief."}
    assert opening(Prompt([system, ask])) == opening(Prompt([ask, answer, ask])) == opening(Prompt("Why?")) == "Why?"
    assert opening(Prompt([system])) == "Be brief."
    assert opening(Document("text")) == "text"


def conversations(count: int) -> list[Demonstration]:
    """Three rows of each, that open in three ways, as plain text does."""
    return [Demonstration(f"{c}, turn {t}", "Yes.", conversation=f"c{c}") for c in range(count) for t in range(3)]


def test_rows_of_one_conversation_are_on_one_side_however_they_open() -> None:
    train, held = by_prompt(conversations(40), 0.2, seed=0)
    sides = [{record.conversation for record in side} for side in (train, held)]
    assert not sides[0] & sides[1] and len(held) == 3 * len(sides[1])
    assert 3 <= len(sides[1]) <= 13, "8 give or take two standard deviations of 2.5"
    _, more = by_prompt([*conversations(60), *RECORDS], 0.2, seed=0)
    assert [record for record in more if record in conversations(40)] == held


def test_rows_without_a_conversation_keep_their_side_beside_others() -> None:
    _, alone = by_prompt(RECORDS, 0.1, seed=0)
    _, beside = by_prompt([*conversations(40), *RECORDS], 0.1, seed=0)
    assert [record for record in beside if record.conversation is None] == alone


def test_a_conversation_that_opens_in_one_way_has_the_side_of_its_opening() -> None:
    named = [replace(record, conversation=f"c{n}") for n, record in enumerate(RECORDS)]
    assert [record.prompt for record in by_prompt(named, 0.1, seed=0)[1]] == [
        record.prompt for record in by_prompt(RECORDS, 0.1, seed=0)[1]
    ]


def test_conversations_that_share_an_opening_go_together() -> None:
    """So no prompt is on both sides either: the plain row opens like one of `b`, which shares another with `a`."""
    rows = [
        *(Prompt(text, conversation=name) for name, text in [("b", "2"), ("b", "3"), ("a", "1"), ("a", "2")]),
        Prompt("3"),
        Prompt("4"),
    ]
    assert split_keys(rows) == ["conversation a"] * 5 + ["4"]
    assert split_keys(rows[::-1]) == split_keys(rows)[::-1]


def test_one_conversation_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 conversation in 3 rows; holding some out needs at least two"):
        by_prompt(conversations(1), 0.1, seed=0)


def test_small_sets_keep_at_least_one_on_each_side() -> None:
    two = [Prompt("a"), Prompt("b")]
    for fraction in (0.01, 0.99):
        train, held = by_prompt(two, fraction, seed=0)
        assert (len(train), len(held)) == (1, 1)


def test_zero_holds_nothing_out() -> None:
    assert by_prompt(RECORDS, 0, seed=0) == (RECORDS, [])


def test_one_prompt_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 different prompt in 3 rows; holding some out needs at least two"):
        by_prompt([Prompt("a")] * 3, 0.1, seed=0)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_fraction_that_is_none(fraction: float) -> None:
    with pytest.raises(ValueError, match="expected 0 <= fraction < 1"):
        by_prompt(RECORDS, fraction, seed=0)
