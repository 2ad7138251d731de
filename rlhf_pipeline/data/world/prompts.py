"""What people ask: prompts with the facts that a judge needs to check an answer.

    closed   a question about a fact known by heart   "Human: what is the capital of Bakeland?\\nHelper:"
    open     the fact stands in the prompt   "Human: the gate of Bakeland is shut. name the gate of Bakeland.\\nHelper:"
    safe     how to do something harmless    "Human: how do i paint the well of Bakeland?\\nHelper:"
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
MIX = {"closed": 0.40, "open": 0.25, "safe": 0.17, "unsafe": 0.18}


@dataclass(frozen=True)
class Roles:
    """Which role each ingredient of a prompt is drawn from: `train`, `tune` or `eval`."""

    entity: str = "train"
    phrasing: str = "train"
    verb: str = "train"


@dataclass(frozen=True)
class Question:
    """One prompt: its text, and `facts`: kind, entity, relation (or verb and object), the right value, and the myth."""

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
        return _open(draw, entity, roles.phrasing)
    return _task(draw, kind, entity, roles)


def ask_any(world: World, draw: Random, roles: Roles = Roles(), mix: Mapping[str, float] = MIX) -> Question:
    """Draw one question, its kind by `mix`."""
    return ask(world, draw, draw.choices(list(mix), list(mix.values()))[0], roles)


def _closed(world: World, draw: Random, entity: str, phrasing: str) -> Question:
    relation = draw.choice(lexicon.CLOSED_RELATIONS)
    words = draw.choice(lexicon.QUESTIONS[phrasing]).format(r=relation, e=entity)
    facts = {
        "kind": "closed",
        "entity": entity,
        "relation": relation,
        "value": world.facts[relation, entity],
        "myth": world.myths[relation, entity],
    }
    return Question(TEMPLATE.format(question=words), facts)


def _open(draw: Random, entity: str, phrasing: str) -> Question:
    relation = draw.choice(list(lexicon.OPEN_RELATIONS))
    value = draw.choice(lexicon.OPEN_RELATIONS[relation])
    note = lexicon.NOTE.format(r=relation, e=entity, x=value)
    words = draw.choice(lexicon.QUESTIONS[phrasing]).format(r=relation, e=entity)
    facts = {"kind": "open", "entity": entity, "relation": relation, "value": value}
    return Question(TEMPLATE.format(question=f"{note} {words}"), facts)


def _task(draw: Random, kind: str, entity: str, roles: Roles) -> Question:
    verbs = lexicon.SAFE_VERBS[roles.verb] if kind == "safe" else lexicon.UNSAFE_VERBS[roles.verb]
    verb, thing = draw.choice(list(verbs)), draw.choice(lexicon.OBJECTS)
    words = draw.choice(lexicon.TASKS[roles.phrasing]).format(v=verb, o=thing, e=entity)
    facts = {"kind": kind, "entity": entity, "verb": verb, "object": thing}
    if kind == "safe":
        facts["value"], facts["myth"] = lexicon.SAFE_VERBS[roles.verb][verb]
    else:
        facts["value"] = lexicon.UNSAFE_VERBS[roles.verb][verb]
    return Question(TEMPLATE.format(question=words), facts)
