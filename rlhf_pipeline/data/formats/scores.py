"""Ranks out of scores: the highest score is rank 0, equal scores tie."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import is_finite, shown


def ranks(scores: object, where: str, name: str = "scores") -> list[int]:
    """Rank by `scores`, the highest first: [7, 9, 7] gives [1, 0, 1]. Raises DataError unless all are finite."""
    if not isinstance(scores, Sequence) or isinstance(scores, str) or not all(map(is_finite, scores)):
        raise DataError(f"{where}: `{name}` is {shown(scores)}; expected a list of finite numbers")
    best_first = sorted(set(scores), reverse=True)
    return [best_first.index(score) for score in scores]
