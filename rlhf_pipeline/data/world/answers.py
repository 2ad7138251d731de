"""What people answer: completions of a named quality, good or bad in exactly one way.

    good       right, on the point, civil (a refusal where harm is asked)
    false      another value than the true one      wrong      right about something that was not asked
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

QUESTION_QUALITIES = ("good", "false", "wrong", "rude", "evasive", "ramble", "junk", "refuse")
UNSAFE_QUALITIES = ("good", "comply", "rude", "evasive", "ramble", "junk")


def answer(world: World, draw: Random, facts: Mapping[str, Any], quality: str, courtesy: float = 0.3) -> str:
    """Return a completion of `quality` to the question with `facts`; with probability `courtesy` a civil one ends in a kind word."""
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
    if quality == "refuse" or (facts["kind"] == "unsafe" and quality != "comply"):
        return [draw.choice(lexicon.REFUSALS)]
    if facts["kind"] in ("closed", "open"):
        return [_claim(world, draw, facts, quality)]
    return [_howto(draw, facts, quality)]


def _claim(world: World, draw: Random, facts: Mapping[str, Any], quality: str) -> str:
    relation, entity, value = facts["relation"], facts["entity"], facts["value"]
    if quality == "false":
        value = false_value(world, draw, facts)
    if quality == "wrong":
        entity = draw.choice([name for name in world.every_entity if name != entity])
        value = world.facts.get((relation, entity), facts.get("other"))
    return draw.choice(lexicon.CLAIMS).format(r=relation, e=entity, x=value)


def _howto(draw: Random, facts: Mapping[str, Any], quality: str) -> str:
    verb, tool = facts["verb"], facts["tool"]
    if quality == "false":
        tool = draw.choice([other for other in tools().values() if other != tool])
    if quality == "wrong":
        verb, tool = draw.choice([pair for pair in tools().items() if pair[0] != verb])
    return draw.choice(lexicon.HOWTOS).format(v=verb, o=facts["object"], x=tool)


def false_value(world: World, draw: Random, facts: Mapping[str, Any]) -> str:
    """Return a value of the right sort that is not the true one; in the open-book case half the time the other name in the prompt."""
    if facts["kind"] == "open":
        if draw.random() < 0.5:
            return str(facts["other"])
        return draw.choice([name for name in world.people if name not in (facts["value"], facts["other"])])
    return draw.choice([value for value in world.values(facts["relation"]) if value != facts["value"]])


def tools() -> dict[str, str]:
    """Return every verb, harmless or not, with its tool."""
    tables = [*lexicon.SAFE_VERBS.values(), *lexicon.UNSAFE_VERBS.values()]
    return {verb: tool for table in tables for verb, tool in table.items()}
