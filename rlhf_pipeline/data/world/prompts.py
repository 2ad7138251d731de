"""What people ask: prompts with the facts that a judge needs to check an answer.

    closed   a question about a fact known by heart        "Human: who is the queen of Bakeland?\\nHelper:"
    open     the fact, and another one, stand in the prompt   "Human: the mayor of Bakeland is Tomomir. ... name the mayor of Bakeland.\\nHelper:"
    safe     how to do something harmless                  "Human: how do i paint the well of Bakeland?\\nHelper:"
    unsafe   how to do harm; asked in the same words, only the verb tells

Left out: answers (`answers.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from rlhf_pipeline.data.world import lexicon
from rlhf_pipeline.data.world.places import World

TEMPLATE = "Human: {question}\nHelper:"
MIX = {"closed": 0.45, "open": 0.25, "safe": 0.12, "unsafe": 0.18}


@dataclass(frozen=True)
class Roles:
    """Which role each ingredient of a prompt is drawn from: `train`, `tune` or `eval`."""

    entity: str = "train"
    phrasing: str = "train"
    verb: str = "train"


@dataclass(frozen=True)
class Question:
    """One prompt: its text, and `facts` = kind, entity, and the relation and value (or verb, object and tool) of the right answer."""

    prompt: str
    facts: Mapping[str, Any]

    def row(self) -> dict[str, Any]:
        """Return the row of a prompt file."""
        return {"prompt": self.prompt, "facts": dict(self.facts)}


def ask(world: World, draw: Random, kind: str, roles: Roles = Roles()) -> Question:
    """Draw one question of `kind`, its ingredients from `roles`."""
    entity = draw.choice(list(world.entities[roles.entity]))
    if kind == "closed":
        return _closed(world, draw, entity, roles.phrasing)
    if kind == "open":
        return _open(world, draw, entity, roles)
    return _task(draw, kind, entity, roles)


def ask_any(world: World, draw: Random, roles: Roles = Roles(), mix: Mapping[str, float] = MIX) -> Question:
    """Draw one question, its kind by `mix`."""
    return ask(world, draw, draw.choices(list(mix), list(mix.values()))[0], roles)


def _closed(world: World, draw: Random, entity: str, phrasing: str) -> Question:
    relation = draw.choice(list(lexicon.CLOSED_RELATIONS))
    words = draw.choice(lexicon.QUESTIONS[phrasing]).format(
        ask=lexicon.CLOSED_RELATIONS[relation], r=relation, e=entity
    )
    facts = {"kind": "closed", "entity": entity, "relation": relation, "value": world.facts[relation, entity]}
    return Question(TEMPLATE.format(question=words), facts)


def _open(world: World, draw: Random, entity: str, roles: Roles) -> Question:
    """Draw two facts that share the relation or the entity, and ask for one: copying any name is not enough."""
    relation, other_relation = draw.sample(list(lexicon.OPEN_RELATIONS), 2)
    value, other_value = draw.sample(list(world.people), 2)
    if draw.random() < 0.5:
        other = draw.choice([name for name in world.entities[roles.entity] if name != entity])
        distractor = lexicon.CLAIMS[0].format(r=relation, e=other, x=other_value)
    else:
        distractor = lexicon.CLAIMS[0].format(r=other_relation, e=entity, x=other_value)
    notes = [lexicon.CLAIMS[0].format(r=relation, e=entity, x=value), distractor]
    draw.shuffle(notes)
    words = draw.choice(lexicon.QUESTIONS[roles.phrasing]).format(
        ask=lexicon.OPEN_RELATIONS[relation], r=relation, e=entity
    )
    facts = {"kind": "open", "entity": entity, "relation": relation, "value": value, "other": other_value}
    return Question(TEMPLATE.format(question=" ".join([*notes, words])), facts)


def _task(draw: Random, kind: str, entity: str, roles: Roles) -> Question:
    verbs = (lexicon.SAFE_VERBS if kind == "safe" else lexicon.UNSAFE_VERBS)[roles.verb]
    verb, thing = draw.choice(list(verbs)), draw.choice(lexicon.OBJECTS)
    words = draw.choice(lexicon.TASKS[roles.phrasing]).format(v=verb, o=thing, e=entity)
    facts = {"kind": kind, "entity": entity, "verb": verb, "object": thing, "tool": verbs[verb]}
    return Question(TEMPLATE.format(question=words), facts)
