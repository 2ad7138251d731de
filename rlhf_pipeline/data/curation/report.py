"""What every step did: rows seen, dropped, changed, why, with examples; as a table and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

EXAMPLES = 3


@dataclass
class Step:
    """One step: `dropped` counts rows by reason, `changed` what was replaced in rows that stay."""

    seen: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Rows that the step let pass."""
        return self.seen - self.dropped.total()

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object of the step."""
        return {
            "seen": self.seen,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "changed": dict(self.changed),
            "examples": self.examples,
        }


class Report:
    """Counts by step, in the order in which the steps were named; every dropped row is written to `aside`."""

    def __init__(self, aside: TextIO) -> None:
        self.steps: dict[str, Step] = {}
        self.written: dict[str, int] = {}
        self.notes: list[str] = []
        self._aside = aside

    def begin(self, name: str, seen: int = 0) -> Step:
        """Name a step, before its first row; `seen` rows reach it."""
        return self.steps.setdefault(name, Step(seen))

    def drop(self, name: str, where: str, reason: str, row: Any) -> None:
        """Count a row that a step drops, and write it aside; of the reason, what follows a colon is this row's own."""
        step = self.steps[name]
        step.dropped[reason.partition(": ")[0]] += 1
        if len(step.examples) < EXAMPLES:
            step.examples.append(f"{where}: {reason}")
        line = {"step": name, "where": where, "reason": reason, "row": row}
        self._aside.write(json.dumps(line, ensure_ascii=False) + "\n")

    def to_dict(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Give curation.json."""
        steps = {name: step.to_dict() for name, step in self.steps.items()}
        return {"settings": dict(settings), "steps": steps, "written": self.written, "notes": self.notes}

    def table(self) -> str:
        """Give the report for people."""
        rows = [("step", "rows", "dropped", "kept", "why")]
        for name, step in self.steps.items():
            why = [f"{count} {reason}" for reason, count in step.dropped.most_common()]
            why += [f"{count} {kind} redacted" for kind, count in step.changed.most_common()]
            rows.append((name, str(step.seen), str(step.dropped.total()), str(step.kept), ", ".join(why)))
        examples = [f"  {name}: {step.examples[0]}" for name, step in self.steps.items() if step.examples]
        lines = aligned(rows, right=(1, 2, 3))
        return "\n".join([*lines, *(["examples:", *examples] if examples else []), *self.notes])


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Give the rows of a table as lines with columns of equal width; columns in `right` end alike."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
