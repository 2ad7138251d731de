"""Rated completions of UltraFeedback (Cui et al. 2023): an instruction, up to four answers, an overall score each.

The ranks follow `overall_score`, equal scores tie; all scores are a model's (GPT-4), not people's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_pipeline.data.formats.scores import ranks
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Prompt, Ranking, Record, shown


def matches(row: dict[str, Any]) -> bool:
    """Say whether the row is an instruction with rated answers."""
    answers = row.get("completions")
    return isinstance(row.get("instruction"), str) and isinstance(answers, list) and all(map(_is_rated, answers))


def convert(row: dict[str, Any], kind: type[Record], where: str) -> Iterator[Record | str]:
    """Give the row as a Ranking or a Prompt, or where fewer than two answers are rated, why not. Raises DataError."""
    origin = {"prompt": row.get("instruction"), "source": row.get("source"), "id": row.get("id")}
    if kind is Prompt:
        yield Prompt.from_dict(origin, where)
        return
    answers = row.get("completions")
    if not isinstance(answers, list) or not all(map(_is_rated, answers)):
        raise DataError(f"{where}: `completions` is {shown(answers)}; expected `response` and `overall_score` in each")
    if len(answers) < 2:
        yield "fewer than two rated answers"
        return
    scores, texts = ([answer[name] for answer in answers] for name in ("overall_score", "response"))
    ranked = {"completions": texts, "ranks": ranks(scores, where, "overall_score"), "scores": list(map(float, scores))}
    yield Ranking.from_dict(origin | ranked | {"labeler": "gpt-4"}, where)


def _is_rated(answer: Any) -> bool:
    return (
        isinstance(answer, dict)
        and isinstance(answer.get("response"), str)
        and type(answer.get("overall_score")) in (int, float)
    )
