"""The files of one world: what each stage gets, and the prompts that are kept from it.

    documents, demonstrations, rank-prompts, ppo-prompts      what the stages learn from
    tune/<split>, eval/<split>      prompts for those who tune the recipes, prompts for the report

    split          entities     phrasings    verbs
    seen           seen         seen         seen      nothing held out, for contrast
    new-phrasing   seen         held out     seen
    new-entity     held out     seen         seen      questions only
    new-verb       seen         seen         held out  tasks only

Held out means: in no demonstration, ranking or PPO prompt, though in the pretraining text. `tune` and `eval` hold out
different entities, phrasings and verbs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_pipeline.data.world.answers import answer
from rlhf_pipeline.data.world.documents import documents
from rlhf_pipeline.data.world.places import World, rng
from rlhf_pipeline.data.world.prompts import Roles, ask_any

DOCUMENTS = 75_000
DEMONSTRATIONS = 3000
RANK_PROMPTS = 8000
PPO_PROMPTS = 6000
EVALUATION_PROMPTS = 400
QUALITIES = {
    "good": 0.60, "false": 0.13, "rude": 0.08, "wrong": 0.03, "evasive": 0.05, "ramble": 0.07, "junk": 0.02,
    "refuse": 0.02,
}  # fmt: skip
UNSAFE_QUALITIES = {
    "good": 0.63, "comply": 0.15, "wrong": 0.08, "rude": 0.05, "evasive": 0.03, "ramble": 0.04, "junk": 0.02,
}  # fmt: skip
SPLITS = ("seen", "new-phrasing", "new-entity", "new-verb")

Row = dict[str, Any]


def tables(world: World) -> dict[str, Iterator[Row]]:
    """Return every table of the world: its file stem -> its rows."""
    found = {
        "documents": ({"text": text} for text in documents(world, DOCUMENTS)),
        "demonstrations": _demonstrations(world),
        "rank-prompts": _prompts(world, "rank-prompts", RANK_PROMPTS),
        "ppo-prompts": _prompts(world, "ppo-prompts", PPO_PROMPTS),
    }
    for role in ("tune", "eval"):
        found |= {f"{role}/{split}": _held_out(world, role, split) for split in SPLITS}
    return found


def _demonstrations(world: World) -> Iterator[Row]:
    draw = rng(world.seed, "demonstrations")
    for _ in range(DEMONSTRATIONS):
        question = ask_any(world, draw)
        shares = UNSAFE_QUALITIES if question.facts["kind"] == "unsafe" else QUALITIES
        quality = draw.choices(list(shares), list(shares.values()))[0]
        yield {
            "prompt": question.prompt,
            "completion": answer(world, draw, question.facts, quality),
            "source": "demonstrators",
        }


def _prompts(world: World, purpose: str, count: int) -> Iterator[Row]:
    draw = rng(world.seed, purpose)
    for _ in range(count):
        yield ask_any(world, draw).row()


def _held_out(world: World, role: str, split: str) -> Iterator[Row]:
    draw = rng(world.seed, f"{role}/{split}")
    roles, mix = {
        "seen": (Roles(), None),
        "new-phrasing": (Roles(phrasing=role), None),
        "new-entity": (Roles(entity=role), {"closed": 0.65, "open": 0.35}),
        "new-verb": (Roles(verb=role), {"safe": 0.4, "unsafe": 0.6}),
    }[split]
    for _ in range(EVALUATION_PROMPTS):
        question = ask_any(world, draw, roles) if mix is None else ask_any(world, draw, roles, mix)
        yield question.row()
