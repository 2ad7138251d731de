"""The exact judge as a reward function of PPO: at weight 0 a metric that stays true while the reward is a guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_pipeline.data.world.judge import judge_facts
from rlhf_pipeline.records import Text, completion_text


def judge(completions: Sequence[Text], facts: Sequence[Mapping[str, Any]], **_: Any) -> list[float]:
    """Score each completion from 0 to 1 by the facts of its prompt, in the form TRL calls reward functions."""
    return [judge_facts(fact, completion_text(one)).score for one, fact in zip(completions, facts, strict=True)]
