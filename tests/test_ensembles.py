"""Members score as they would alone, each by its own scale, and are reduced as computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rlhf_pipeline.ensembles import Members, Reduction, disagreement
from rlhf_pipeline.normalization import Normalization
from rlhf_pipeline.rewards import model_reward
from rlhf_pipeline.scoring import RewardModel
from tests.tiny import make_classifier, make_tokenizer

SCORES = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0], [-1.0, 1.0, 0.0]])
STD = torch.tensor([math.sqrt(14 / 3), 0.0, math.sqrt(2 / 3)])  # deviations -2 -1 3; none; -1 1 0
ROWS = [[5, 6, 7], [9, 8], [40, 41, 42, 43, 44]]


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (Reduction(), [3.0, 0.0, 0.0]),
        (Reduction("min"), [1.0, 0.0, -1.0]),
        (Reduction("mean", 0.5), [3.0 - 0.5 * math.sqrt(14 / 3), 0.0, -0.5 * math.sqrt(2 / 3)]),
        (Reduction("min", 1.0), [1.0 - math.sqrt(14 / 3), 0.0, -1.0 - math.sqrt(2 / 3)]),
    ],
)
def test_reductions_by_hand(reduction: Reduction, expected: list[float]) -> None:
    torch.testing.assert_close(reduction(SCORES), torch.tensor(expected))


def test_disagreement_by_hand() -> None:
    torch.testing.assert_close(disagreement(SCORES), STD)
    assert disagreement(SCORES[:, :1]).tolist() == [0.0] * 3


@pytest.mark.parametrize("kind", ["mean", "min"])
def test_one_member_is_itself_under_every_reduction(kind: str) -> None:
    assert torch.equal(Reduction(kind, 3.0)(SCORES[:, 1:2]), SCORES[:, 1])  # type: ignore[arg-type]


def test_the_order_of_members_changes_nothing() -> None:
    for reduction in (Reduction(), Reduction("min"), Reduction("mean", 2.0)):
        torch.testing.assert_close(reduction(SCORES[:, [2, 0, 1]]), reduction(SCORES))


def constant(*labels: float) -> object:
    """A network whose labels are the same for every row."""

    def network(input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.tensor([labels] * len(input_ids)))

    return network


def test_every_member_is_normalised_before_they_are_reduced() -> None:
    """Whole models and heads mix: logits 3 | 8, -2 with offsets 1 | 2, 0 and scales 2 | 3, 1."""
    members = Members([constant(3.0), constant(8.0, -2.0)], [1.0, 2.0, 0.0], [2.0, 3.0, 1.0])
    logits = members(torch.ones(2, 4), torch.ones(2, 4)).logits
    assert logits.tolist() == [[1.0, 2.0, -2.0]] * 2
    assert len(members) == 3
    assert Reduction("min")(logits).tolist() == [-2.0] * 2


def ensemble(seeds: Sequence[int], reduction: Reduction | None = None) -> RewardModel:
    networks = [make_classifier(seed=seed) for seed in seeds]
    members = Members(networks, [0.0] * len(seeds), [1.0] * len(seeds))
    return RewardModel(members, make_tokenizer(), "several", reduction=reduction or Reduction())


def test_an_ensemble_scores_each_row_as_its_members_would_alone() -> None:
    several = ensemble([0, 1, 2])
    alone = [RewardModel(make_classifier(seed=seed), make_tokenizer(), "one").score_ids(ROWS) for seed in (0, 1, 2)]
    torch.testing.assert_close(several.member_scores(ROWS), torch.stack(alone, dim=1))
    torch.testing.assert_close(several.score_ids(ROWS), torch.stack(alone).mean(dim=0))
    torch.testing.assert_close(ensemble([0, 1, 2], Reduction("min")).score_ids(ROWS), torch.stack(alone).amin(dim=0))
    assert several.members == 3 and len(several.networks) == 3
    assert several.score_ids([]).shape == (0,)


def test_identical_members_disagree_by_nothing() -> None:
    scores = ensemble([4, 4, 4]).member_scores(ROWS)
    assert disagreement(scores).abs().max() < 1e-6
    torch.testing.assert_close(Reduction("mean", 5.0)(scores), scores[:, 0])
    assert disagreement(ensemble([4, 5]).member_scores(ROWS)).min() > 1e-4


def test_what_members_disagree_by_is_logged_once_a_rollout_and_only_of_ensembles() -> None:
    logged: dict[str, float] = {}
    asked = {"prompts": ["a", "b"], "completions": ["c", "d"], "completion_ids": [[5], [6, 1]]}
    several, tokenizer = ensemble([0, 1]), make_tokenizer()
    scores = model_reward(several, tokenizer, {1})(**asked, log_metric=logged.__setitem__)
    rows = several.rows(asked["prompts"], asked["completions"], [False, True], asked["completion_ids"])
    assert scores == several.score_ids(rows).tolist()
    assert logged == {"ppo/disagreement": pytest.approx(float(disagreement(several.member_scores(rows)).mean()))}
    logged.clear()
    one = RewardModel(make_classifier(), tokenizer, "one")
    model_reward(one, tokenizer, {1})(**asked, log_metric=logged.__setitem__)
    assert logged == {}


def test_normalization_is_read_for_every_head() -> None:
    assert Normalization.of({}) == [Normalization()]
    assert Normalization.of({"reward_offset": 2.0}) == [Normalization(2.0, 1.0)]
    heads = Normalization.of({"reward_offset": [1.0, 2.0], "reward_scale": 3.0}, heads=2)
    assert heads == [Normalization(1.0, 3.0), Normalization(2.0, 3.0)]
    with pytest.raises(ValueError, match="zip"):
        Normalization.of({"reward_offset": [1.0, 2.0, 3.0]}, heads=2)
