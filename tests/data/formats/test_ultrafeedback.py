"""UltraFeedback ratings."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.data.formats.ultrafeedback import convert, matches
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Prompt, Ranking


def rated(*scores: float) -> dict[str, Any]:
    answers = [{"response": f"answer {n}", "overall_score": score} for n, score in enumerate(scores)]
    return {"source": "evol", "instruction": "Do it.", "completions": answers}


def test_scores_become_ranks_and_ties() -> None:
    row = rated(2, 9.5, 2.0, 7)
    assert matches(row)
    texts = [f"answer {n}" for n in range(4)]
    expected = Ranking("Do it.", texts, [2, 0, 2, 1], scores=[2.0, 9.5, 2.0, 7.0], labeler="gpt-4", source="evol")
    assert list(convert(row, Ranking, "f:1")) == [expected]
    assert list(convert(row, Prompt, "f:1")) == [Prompt("Do it.", source="evol")]


def test_a_lone_answer_is_dropped_with_a_reason() -> None:
    assert list(convert(rated(5), Ranking, "f:1")) == ["fewer than two rated answers"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 10**400])
def test_scores_that_are_no_numbers(score: float) -> None:
    with pytest.raises(DataError, match="f:1: `overall_score` is .*; expected a list of finite numbers"):
        list(convert(rated(1, score), Ranking, "f:1"))


def test_rows_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="f:1: `completions` is .*; expected `response` and `overall_score` in each"):
        list(convert({"instruction": "x", "completions": [{"response": "y"}]}, Ranking, "f:1"))
    assert not matches({"instruction": "x", "completions": ["y"]})
