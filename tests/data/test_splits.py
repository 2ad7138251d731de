"""Splits by prompt: nothing on both sides, and the same choice whatever the order."""

from __future__ import annotations

import pytest

from rlhf_pipeline.data.splits import by_prompt, opening
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
