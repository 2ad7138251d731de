"""Figures of groups by hand, and the metrics that do not depend on how groups were batched."""

from __future__ import annotations

import pytest
import torch

from rlhf_pipeline.ranking.collator import GroupCollator
from rlhf_pipeline.ranking.figures import group_figures, metrics, outcomes, totals
from tests.ranking.toy import make_group, random_groups

PAIR = make_group([[5, 6], [7]], [1, 0])
TRIPLE = make_group([[2, 3, 4], [8], [9, 9]], [0, 1, 1])
SCORES = torch.tensor([-1.0, 3.0, 0.5, 1.0, 0.0])  # the pair is right by 4; the triple wrong by 0.5, right by 0.5


def test_two_groups_by_hand() -> None:
    figures = group_figures(SCORES, GroupCollator(0)([PAIR, TRIPLE]))
    assert figures.tolist() == [[1, 1, 4, 2, 2, -1, 3, 3], [2, 1, 0, 3, 1.5, 0, 1, 6]]
    assert metrics(figures) == pytest.approx(
        {"min_reward": -1, "mean_reward": 0.7, "max_reward": 3, "accuracy": 2 / 3, "margin": 4 / 3}
    )
    assert outcomes(figures) == ([1, 1, 0], [0, 1, 1])


def test_equal_scores_are_not_right() -> None:
    figures = group_figures(torch.zeros(2), GroupCollator(0)([PAIR]))
    assert metrics(figures)["accuracy"] == 0


def test_ties_alone_have_no_accuracy() -> None:
    tie = make_group([[5], [7]], [0, 0])
    found = metrics(group_figures(torch.tensor([1.0, 2.0]), GroupCollator(0)([tie])))
    assert found == {"min_reward": 1, "mean_reward": 1.5, "max_reward": 2}


@pytest.mark.parametrize("seed", range(5))
def test_batches_do_not_matter(seed: int) -> None:
    groups = random_groups(seed, [4, 2, 9, 3, 2], ties=True)
    scores = torch.randn(20, generator=torch.Generator().manual_seed(seed))
    collate = GroupCollator(0)
    whole = group_figures(scores, collate(groups))
    parts = [group_figures(scores[:6], collate(groups[:2])), group_figures(scores[6:], collate(groups[2:]))]
    assert torch.cat(parts).equal(whole)
    assert metrics(torch.cat(parts)) == metrics(whole)
    of_processes = torch.cat([totals(part) for part in parts])
    assert metrics(of_processes) == pytest.approx(metrics(whole))
