"""`rlhf world`: write the miniature world of a seed as the files that the stages read.

The same seed gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_pipeline.config import command_settings
from rlhf_pipeline.data.world import places, sets, tokenizer

TEXT_FIELDS = ("text", "prompt", "completion")


@dataclass(frozen=True)
class WorldSettings:
    """What `rlhf world` can be asked for."""

    seed: int = field(default=0, metadata={"help": "another seed gives other names, facts and held-out places"})
    folder: str = field(default="artifacts/runs/default/world", metadata={"help": "where the files are written"})


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    chosen = command_settings(argv, "rlhf world", "Write the miniature world of a seed.", WorldSettings)
    if chosen is None:
        return 0
    counts = write(chosen.seed, Path(chosen.folder))
    print(f"world {chosen.seed} in {chosen.folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    return 0


def write(seed: int, folder: Path) -> dict[str, int]:
    """Write all files of world `seed` to `folder`; return how many rows each got."""
    counts, vocabulary = {}, set[str]()
    for name, table in sets.tables(places.build(seed)).items():
        rows = list(table)
        counts[name] = len(rows)
        _write_table(folder / f"{name}.jsonl", rows)
        vocabulary.update(tokenizer.words(row[key] for row in rows for key in TEXT_FIELDS if key in row))
    tokenizer.save(sorted(vocabulary), folder / "tokenizer")
    (folder / "world.json").write_text(json.dumps({"seed": seed}) + "\n", encoding="utf-8")  # `rlhf eval` reads it
    return counts


def _write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
