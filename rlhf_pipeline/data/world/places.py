"""The facts of one world: its places, what is true of them, and which of them are held out.

Left out: any text. Two worlds with the same seed are equal; with another seed all names and facts change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from rlhf_pipeline.data.world.lexicon import CLOSED_RELATIONS, ENDINGS, ROLES, SYLLABLES

ENTITIES = {"train": 24, "tune": 6, "eval": 10}


@dataclass(frozen=True)
class World:
    """`entities`: role -> names. `facts`, `myths`: (relation, entity) -> the true value, the false one people believe.

    Every value is unique: a capital belongs to one place, as truth or as myth.
    """

    seed: int
    entities: Mapping[str, Sequence[str]]
    facts: Mapping[tuple[str, str], str]
    myths: Mapping[tuple[str, str], str]

    @property
    def every_entity(self) -> list[str]:
        """All entities, whatever their role."""
        return [name for role in ROLES for name in self.entities[role]]


def rng(seed: int, purpose: str) -> Random:
    """Return a generator of its own for each purpose, so that changing one part leaves the others as they are."""
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
    myths: dict[tuple[str, str], str] = {}
    for relation in CLOSED_RELATIONS:
        values = _names(draw, 2 * len(names), relation)
        subjects = [(relation, name) for name in names]
        facts |= zip(subjects, values[: len(names)], strict=True)
        myths |= zip(subjects, values[len(names) :], strict=True)
    return World(seed, entities, facts, myths)


def _names(draw: Random, count: int, sort: str) -> list[str]:
    """Draw `count` different names; the ending tells the sort of thing, as in Bakeland or Todoburg."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(draw.sample(SYLLABLES, 2)).capitalize() + ENDINGS[sort]] = None
    return list(names)
