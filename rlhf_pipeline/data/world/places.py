"""The facts of one world: its places, what is true of them, and which of them are held out.

Left out: any text. Two worlds with the same seed are equal; with another seed all names and facts change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from rlhf_pipeline.data.world.lexicon import CLOSED_RELATIONS, ENDINGS, ROLES, SYLLABLES

ENTITIES = {"train": 30, "tune": 6, "eval": 12}
PEOPLE = 24


@dataclass(frozen=True)
class World:
    """`entities`: role -> names. `facts`: (relation, entity) -> value, every value unique. `people`: names for open-book facts."""

    seed: int
    entities: Mapping[str, Sequence[str]]
    facts: Mapping[tuple[str, str], str]
    people: Sequence[str]

    @property
    def every_entity(self) -> list[str]:
        """All entities, whatever their role."""
        return [name for role in ROLES for name in self.entities[role]]

    def values(self, relation: str) -> list[str]:
        """Return every value that `relation` takes, so that a false one can be drawn."""
        return [value for (name, _), value in self.facts.items() if name == relation]


def rng(seed: int, purpose: str) -> Random:
    """Return a generator of its own for each purpose, so that changing one part of the world leaves the others as they are."""
    return Random(f"world/{seed}/{purpose}")


def build(seed: int) -> World:
    """Draw the world of `seed`."""
    draw = rng(seed, "places")
    names = _names(draw, sum(ENTITIES.values()), "entity")
    entities: dict[str, list[str]] = {}
    start = 0
    for role in ROLES:
        entities[role] = names[start : start + ENTITIES[role]]
        start += ENTITIES[role]
    facts: dict[tuple[str, str], str] = {}
    for relation in CLOSED_RELATIONS:
        facts |= {
            (relation, entity): value for entity, value in zip(names, _names(draw, len(names), relation), strict=True)
        }
    return World(seed, entities, facts, _names(draw, PEOPLE, "person"))


def _names(draw: Random, count: int, sort: str) -> list[str]:
    """Draw `count` different names; the ending tells the sort of thing, as in Bakeland or Todoburg."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(draw.sample(SYLLABLES, 2)).capitalize() + ENDINGS[sort]] = None
    return list(names)
