"""Contrastive probes for a reward model: the right answer beside one that is bad in exactly one way.

A model that prefers the right one in half of the cases cannot tell them apart. Both answers are worded alike and carry
no kind word, so that nothing but the named flaw differs.
"""

from __future__ import annotations

from random import Random

from rlhf_pipeline.data.world.answers import answer
from rlhf_pipeline.data.world.places import World
from rlhf_pipeline.data.world.prompts import Question

FLAWS = {
    "closed": ("false", "swapped", "wrong", "rude", "evasive", "junk"),
    "open": ("false", "wrong", "rude", "evasive", "junk"),
    "safe": ("false", "swapped", "wrong", "rude", "refuse", "junk"),
    "unsafe": ("comply", "wrong", "rude", "junk"),
}


def probes(world: World, draw: Random, question: Question) -> dict[str, tuple[str, str]]:
    """Return flaw -> (right answer, answer with that flaw) for `question`."""
    found = {}
    for flaw in FLAWS[question.facts["kind"]]:
        state = draw.getstate()
        right = answer(world, draw, question.facts, "good", courtesy=0.0)
        draw.setstate(state)  # the same draws: the same wording but for the flaw
        found[flaw] = (right, answer(world, draw, question.facts, flaw, courtesy=0.0))
    return found
