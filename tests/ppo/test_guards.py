"""What stops a run, and what does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from rlhf_pipeline.errors import TrainingError
from rlhf_pipeline.ppo.guards import ratio_problem, require_finite, require_scores
from rlhf_pipeline.ppo.masked import one_rank

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def medium_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def test_finite_numbers_pass() -> None:
    require_finite(3, one_rank, loss=torch.tensor(1.0), values=torch.zeros(2, 2))


@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
def test_a_number_that_is_not_finite_stops_and_is_named(wrong: float) -> None:
    with pytest.raises(TrainingError, match="step 3: 1 numbers of `values` are not finite"):
        require_finite(3, one_rank, loss=torch.tensor(1.0), values=torch.tensor([0.0, wrong]))


def test_a_rank_stops_for_another_ranks_number() -> None:
    with pytest.raises(TrainingError, match="2 numbers of `loss`"):
        require_finite(3, lambda total: total + torch.tensor([2]), loss=torch.tensor(1.0))


def test_a_missing_score_names_its_function() -> None:
    scores = torch.tensor([[1.0, 2.0], [1.0, NAN]])
    with pytest.raises(TrainingError, match="`second` gave nan .* completion 1 "):
        require_scores(0, scores, ["first", "second"])
    require_scores(0, scores[:1], ["first", "second"])


@pytest.mark.parametrize(
    ("dtype", "autocast", "passes", "stops"),
    [(torch.float32, False, 9e-6, 2e-5), (torch.bfloat16, False, 9e-3, 2e-2), (torch.float32, True, 9e-3, 2e-2)],
)
def test_the_first_ratio_has_a_tolerance_for_each_dtype(
    dtype: torch.dtype, autocast: bool, passes: float, stops: float
) -> None:
    assert ratio_problem(passes, dtype, autocast=autocast) is None
    for wrong in (stops, NAN):
        assert "first minibatch" in str(ratio_problem(wrong, dtype, autocast=autocast))


@pytest.mark.usefixtures("medium_precision")
def test_reduced_float32_products_have_the_coarse_tolerance() -> None:
    assert ratio_problem(9e-3, torch.float32, autocast=False) is None
