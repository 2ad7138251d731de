"""Groups to one padded batch, by hand."""

from __future__ import annotations

from trl.trainer.reward_trainer import DataCollatorForPreference

from rlhf_pipeline.ranking.collator import GroupCollator
from tests.ranking.toy import exploded, make_group, random_groups

PAIR = make_group([[5, 6], [7]], [1, 0])
TRIPLE = make_group([[2, 3, 4], [8], [9, 9]], [0, 1, 1], [2.0, 0.5, 0.0])


def test_rows_and_comparisons_of_two_groups() -> None:
    batch = GroupCollator(pad_token_id=0)([PAIR, TRIPLE])
    assert next(iter(batch)) == "comparisons"
    assert batch["comparisons"].tolist() == [1, 3] and batch["completions"].tolist() == [2, 3]
    assert batch["input_ids"].tolist() == [[5, 6, 0], [7, 0, 0], [2, 3, 4], [8, 0, 0], [9, 9, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch["better"].tolist() == [1, 2, 2, 3] and batch["worse"].tolist() == [0, 3, 4, 4]
    assert batch["margin"].tolist() == [0.0, 1.5, 2.0, 0.0]
    assert batch["tied"].tolist() == [False, False, False, True]


def test_a_pad_token_inside_a_row_is_not_masked() -> None:
    batch = GroupCollator(pad_token_id=9)([TRIPLE])
    assert batch["attention_mask"].tolist()[2] == [1, 1, 0]


def test_width_is_rounded_up() -> None:
    assert GroupCollator(0, pad_to_multiple_of=8)([TRIPLE])["input_ids"].shape == (3, 8)
    assert GroupCollator(0, pad_to_multiple_of=3)([TRIPLE])["input_ids"].shape == (3, 3)


def test_pairs_are_padded_as_trl_pads_them() -> None:
    groups = random_groups(0, [2] * 5)
    ours, theirs = GroupCollator(0, 4)(groups), DataCollatorForPreference(0, 4)(exploded(groups))
    rows = [*ours["better"].tolist(), *ours["worse"].tolist()]
    assert ours["input_ids"][rows].equal(theirs["input_ids"])
    assert ours["attention_mask"][rows].equal(theirs["attention_mask"])
