"""A stored rollout: read as a file of reward functions, it also puts stored completions in the place of sampled ones.

Every process reads it, so policies under all launchers see the same completions. They hang on the prompt alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from rlhf_pipeline.ppo import trainer

EOS = 1
BYTES = range(2, 258)


def stored(
    model: Any, prompt_ids: Sequence[list[int]], *, max_new_tokens: int, **_: Any
) -> tuple[list[list[int]], list[list[float]]]:
    """Look a completion up for every prompt: between one token and `max_new_tokens`, ended by EOS where shorter."""
    completions = []
    for ids in prompt_ids:
        chance = random.Random(str(ids))
        length = chance.randint(1, max_new_tokens)
        drawn = [chance.choice(BYTES) for _ in range(length)]
        completions.append(drawn if length == max_new_tokens else [*drawn, EOS])
    return completions, [[0.0] * len(ids) for ids in completions]


def nothing(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward of zero."""
    return [0.0 for _ in completions]


trainer.sample = stored
