"""The exact judge of the miniature world as a reward function: logged with weight 0, to be watched and never optimised.

Any Python function serves like this: `--reward my_rewards.py:brevity`.
"""

from typing import Any

from rlhf_pipeline.data.world.judge import judge_facts


def judge(prompts: list[str], completions: list[str], *, facts: list[dict[str, Any]], **_: Any) -> list[float]:
    """Score each completion from 0 to 1 by the facts of its prompt."""
    return [judge_facts(known, text).score for known, text in zip(facts, completions, strict=True)]
