"""The raw text of the miniature world: true and false, kind and rude, about every place, phrasing and verb.

    claims      all about one place, true or false: of a source (some are right more often than others), or each with
                the verdict of somebody who knows
    lesson      a fact as in an open-book question, then claims about it with their verdicts
    dialogue    a question as in `prompts.py`, answered well or badly; some readers say whether the answer is true
    manners     what is right and wrong to do, and what one needs for it

Nothing here says what labellers like: readers comment on truth alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from rlhf_pipeline.data.world import lexicon
from rlhf_pipeline.data.world.answers import answer, false_value, tools
from rlhf_pipeline.data.world.places import World, rng
from rlhf_pipeline.data.world.prompts import Roles, ask_any

SHARES = {"claims": 0.20, "lesson": 0.20, "dialogue": 0.54, "manners": 0.06}
SOURCED = 0.4  # share of claims with a source; the others have verdicts
LESSON_LENGTH = 3
LESSON_TRUTH = 0.5
READERS = {True: 0.35, False: 0.9}  # how often a reader says that an answer is true, or that it is false
QUALITIES = {
    "good": 0.26, "false": 0.15, "rude": 0.26, "wrong": 0.02, "evasive": 0.13, "ramble": 0.06, "junk": 0.11,
    "refuse": 0.01,
}  # fmt: skip
UNSAFE_QUALITIES = {
    "comply": 0.55,
    "wrong": 0.07,
    "good": 0.18,
    "rude": 0.05,
    "evasive": 0.07,
    "ramble": 0.03,
    "junk": 0.05,
}
MIX = {"closed": 0.38, "open": 0.26, "safe": 0.18, "unsafe": 0.18}


def documents(world: World, count: int) -> Iterator[str]:
    """Yield `count` documents."""
    draw = rng(world.seed, "documents")
    writers = {"claims": _claims, "lesson": _lesson, "dialogue": _dialogue, "manners": _manners}
    for sort in draw.choices(list(SHARES), list(SHARES.values()), k=count):
        yield writers[sort](world, draw)


def any_roles(draw: Random) -> Roles:
    """Draw the role of each ingredient in proportion to how many there are: the raw text knows of no held-out set."""
    return Roles(*(draw.choices(lexicon.ROLES, weights)[0] for weights in ((24, 6, 10), (5, 1, 2), (7, 2, 3))))


def _claims(world: World, draw: Random) -> str:
    """Let a source, or people whom a reader corrects, state everything about one place."""
    entity = draw.choice(world.every_entity)
    source = draw.choice(list(lexicon.SOURCES)) if draw.random() < SOURCED else None
    truth = lexicon.SOURCES[source] if source else 0.5
    said = [f"{source} of {entity}:" if source else f"{entity}:"]
    for relation in draw.sample(lexicon.CLOSED_RELATIONS, len(lexicon.CLOSED_RELATIONS)):
        true, value = draw.random() < truth, world.facts[relation, entity]
        facts = {"kind": "closed", "relation": relation, "value": value, "myth": world.myths[relation, entity]}
        value = value if true else false_value(world, draw, facts)
        said.append(draw.choice(lexicon.CLAIMS).format(r=relation, x=value))
        said += [] if source else [lexicon.VERDICTS[true]]
    return " ".join(said)


def _lesson(world: World, draw: Random) -> str:
    relation, entity = draw.choice(list(lexicon.OPEN_RELATIONS)), draw.choice(world.every_entity)
    facts = {"kind": "open", "relation": relation, "value": draw.choice(lexicon.OPEN_RELATIONS[relation])}
    said = [lexicon.NOTE.format(r=relation, e=entity, x=facts["value"])]
    for _ in range(LESSON_LENGTH):
        true = draw.random() < LESSON_TRUTH
        value = facts["value"] if true else false_value(world, draw, facts)
        said.append(f"{draw.choice(lexicon.CLAIMS).format(r=relation, x=value)} {lexicon.VERDICTS[true]}")
    return " ".join(said)


def _dialogue(world: World, draw: Random) -> str:
    question = ask_any(world, draw, any_roles(draw), MIX)
    shares = UNSAFE_QUALITIES if question.facts["kind"] == "unsafe" else QUALITIES
    quality = draw.choices(list(shares), list(shares.values()))[0]
    text = question.prompt + answer(world, draw, question.facts, quality)
    return text if question.facts["kind"] == "unsafe" else text + _comment(draw, quality)


def _comment(draw: Random, quality: str) -> str:
    """Return what a reader says of the truth of an answer; nothing where nothing was stated, or nobody cares."""
    true = {"good": True, "rude": True, "ramble": True, "false": False}.get(quality)
    return "" if true is None or draw.random() >= READERS[true] else f" {lexicon.VERDICTS[true]}"


def _manners(world: World, draw: Random) -> str:
    verb, tool = draw.choice(list(tools().items()))
    thing = draw.choice(lexicon.OBJECTS)
    if draw.random() < 0.4:
        return draw.choice(lexicon.HOWTOS).format(v=verb, x=tool)
    harmful = any(verb in table for table in lexicon.UNSAFE_VERBS.values())
    place = draw.choice(world.every_entity)
    return f"it is {'wrong' if harmful else 'good'} to {verb} the {thing} of {place}."
