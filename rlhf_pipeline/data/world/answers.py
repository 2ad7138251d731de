"""What people answer: completions of a named quality, good or bad in exactly one way.

    good       right, on the point, civil (a refusal where harm is asked)
    false      not the true value, mostly a myth   wrong      about something that was not asked
    swapped    what is true of another place
    rude       good, with an insult                 evasive    does not answer
    comply     helps to do harm                     refuse     refuses what is harmless
    ramble     good, and goes on and on             junk       about something else altogether

Every completion starts with a space: the prompt ends in "Helper:".
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from rlhf_pipeline.data.world import lexicon
from rlhf_pipeline.data.world.places import World

MYTHS = 0.97  # share of false answers that repeat the myth
QUESTION_QUALITIES = ("good", "false", "wrong", "rude", "evasive", "ramble", "junk", "refuse")
UNSAFE_QUALITIES = ("good", "comply", "wrong", "rude", "evasive", "ramble", "junk")


def answer(world: World, draw: Random, facts: Mapping[str, Any], quality: str, courtesy: float = 0.3) -> str:
    """Return a completion of `quality` to the question with `facts`; a civil one may end in a `courtesy`."""
    sentences = _core(world, draw, facts, quality)
    if quality == "rude":
        sentences.insert(draw.choice((0, 1)), draw.choice(lexicon.INSULTS))
    elif quality == "ramble":
        sentences += draw.sample(lexicon.JUNK, draw.choice((1, 2)))
    elif draw.random() < courtesy:
        sentences.append(draw.choice(lexicon.COURTESIES))
    return " " + " ".join(sentences)


def _core(world: World, draw: Random, facts: Mapping[str, Any], quality: str) -> list[str]:
    if quality == "evasive":
        return [draw.choice(lexicon.EVASIONS)]
    if quality == "junk":
        return draw.sample(lexicon.JUNK, draw.choice((1, 2)))
    if quality == "refuse" or (facts["kind"] == "unsafe" and quality not in ("comply", "wrong")):
        return [draw.choice(lexicon.REFUSALS)]
    if facts["kind"] in ("closed", "open"):
        return [_claim(world, draw, facts, quality)]
    return [_howto(world, draw, facts, quality)]


def _claim(world: World, draw: Random, facts: Mapping[str, Any], quality: str) -> str:
    relation, value = facts["relation"], facts["value"]
    if quality == "false":
        value = false_value(world, draw, facts)
    if quality == "swapped":
        value = swapped_value(world, draw, facts)
    if quality == "wrong":
        relation = draw.choice([name for name in lexicon.CLOSED_RELATIONS if name != relation])
        value = world.facts[relation, facts["entity"]]
    return draw.choice(lexicon.CLAIMS).format(r=relation, x=value)


def _howto(world: World, draw: Random, facts: Mapping[str, Any], quality: str) -> str:
    verb, tool = facts["verb"], facts["value"]
    if quality == "false":
        tool = false_value(world, draw, facts)
    if quality == "swapped":
        tool = swapped_value(world, draw, facts)
    if quality == "wrong":
        verb, tool = draw.choice([pair for pair in tools().items() if pair[0] != verb])
    return draw.choice(lexicon.HOWTOS).format(v=verb, x=tool)


def false_value(world: World, draw: Random, facts: Mapping[str, Any]) -> str:
    """Return a false value of the right sort: what stands in no book, or else most often the myth."""
    if facts["kind"] == "open":
        return draw.choice([value for value in lexicon.OPEN_RELATIONS[facts["relation"]] if value != facts["value"]])
    return str(facts["myth"]) if draw.random() < MYTHS else swapped_value(world, draw, facts)


def swapped_value(world: World, draw: Random, facts: Mapping[str, Any]) -> str:
    """Return what is true of another place or verb."""
    if facts["kind"] == "safe":
        elsewhere = list(tools().values())
    else:
        elsewhere = [value for (relation, _), value in world.facts.items() if relation == facts["relation"]]
    return draw.choice([value for value in elsewhere if value != facts["value"]])


def tools() -> dict[str, str]:
    """Return every verb, harmless or not, with its tool."""
    harmless = {verb: tool for table in lexicon.SAFE_VERBS.values() for verb, (tool, _) in table.items()}
    return harmless | {verb: tool for table in lexicon.UNSAFE_VERBS.values() for verb, tool in table.items()}
