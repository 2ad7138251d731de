"""What data sets share: prompts, near-duplicate prompts, users, conversations. One index holds all of them.

A row is compared by every prompt that any stage would read from it, whatever it would read the row as.
Left out: answers. Two sets may answer alike ("Yes.") without sharing anything that matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from rlhf_pipeline.data.curation.groups import Mask, ranks, shuffled
from rlhf_pipeline.data.curation.near_duplicates import NearDuplicates
from rlhf_pipeline.data.curation.rows import Keys, RowFile
from rlhf_pipeline.data.curation.text import prompt_text
from rlhf_pipeline.data.formats import AmbiguousFormat
from rlhf_pipeline.data.sources import BadRow, Found, LeftOut, stream
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Record

Check = Literal["prompt", "near_duplicate", "conversation", "user"]
Verdict = Literal["disjoint", "shared", "unknown"]
EXAMPLES = 3


@dataclass(frozen=True)
class DataSet:
    """Rows [`start`, `end`) of the index, read from `source`; `bad` rows could not be read and are not among them.

    `first_bad`: the place of the first of these, and why.
    """

    source: str
    start: int
    end: int
    bad: int
    first_bad: str = ""

    @property
    def rows(self) -> int:
        """How many rows are compared."""
        return self.end - self.start


@dataclass(frozen=True)
class Overlap:
    """What two sets share under one check: rows of each that do, rows of each that are unknown, and examples.

    Unknown is a row that does not say, or that could not be read. The rows of near-duplicates are those without an
    equal prompt on the other side.
    """

    one: str
    other: str
    check: Check
    one_rows: int
    other_rows: int
    one_unknown: int = 0
    other_unknown: int = 0
    examples: list[list[str]] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """Shared, where a single row is; unknown, where rows do not say; disjoint is proven."""
        if self.one_rows:
            return "shared"
        return "unknown" if self.one_unknown or self.other_unknown else "disjoint"

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object."""
        return {**asdict(self), "verdict": self.verdict}


class OverlapIndex:
    """All rows of all sets; a source is added once, then any two can be compared."""

    def __init__(self, threshold: float, scratch: Path) -> None:
        """`threshold`: Jaccard similarity from which prompts are near-duplicates; `scratch`: an empty folder."""
        self.threshold = threshold
        self._keys, self._places = Keys(), RowFile(scratch / "places")
        self._near = NearDuplicates(threshold, scratch)

    def close(self) -> None:
        """Close the scratch files."""
        self._near.close()
        self._places.close()

    def add(self, source: str) -> DataSet:
        """Read a source and index its prompts. Raises DataError where none of its rows can be read."""
        start, bad, first_bad = len(self._keys), 0, ""
        for item in tqdm(_rows(source), desc=f"reading {source}", unit="row", delay=2, leave=False, disable=None):
            if isinstance(item, Found):
                self._keys.add(item.record)
                self._near.add(prompt_text(item.record))
                self._places.add(item.where, "")
            elif isinstance(item, BadRow):
                bad, first_bad = bad + 1, first_bad or f"{item.where}: {item.reason}"
        if len(self._keys) == start:
            seen = f"; the first row, {first_bad}" if first_bad else ""
            raise DataError(f"{source}: no row with a prompt or text; there is nothing to compare{seen}")
        return DataSet(source, start, len(self._keys), bad, first_bad)

    def compare(self, one: DataSet, other: DataSet, checks: Sequence[Check]) -> Iterator[Overlap]:
        """Compare two sets under each check."""
        for check in checks:
            if check == "near_duplicate":
                yield self._near_duplicates(one, other)
            else:
                names = {"prompt": ("prompt",), "user": ("user",), "conversation": ("conversation", "opening")}[check]
                yield self._equal(one, other, check, names)

    def _equal(self, one: DataSet, other: DataSet, check: Check, names: Sequence[str]) -> Overlap:
        """Rows that agree in any of the columns `names`; a row that says none of them is unknown."""
        agree = [_shared(self._keys[name], one, other) for name in names]
        mine, theirs = (np.logical_or.reduce([pair[side] for pair in agree]) for side in (0, 1))
        says = [np.logical_or.reduce([self._keys[name][s.start : s.end] != 0 for name in names]) for s in (one, other)]
        return Overlap(
            one.source,
            other.source,
            check,
            int(mine.sum()),
            int(theirs.sum()),
            int((~says[0]).sum()) + one.bad,
            int((~says[1]).sum()) + other.bad,
            self._examples(one, other, mine, names),
        )

    def _examples(self, one: DataSet, other: DataSet, mine: Mask, names: Sequence[str]) -> list[list[str]]:
        """Places of the first rows of `one` that are shared, each with the first row of `other` it is shared with."""
        found = []
        for number in np.flatnonzero(mine)[:EXAMPLES].tolist():
            for name in names:
                column = self._keys[name]
                value = column[one.start + number]
                same = np.flatnonzero((column[other.start : other.end] == value) & (value != 0))
                if len(same):
                    found.append([self._places.where(row) for row in (one.start + number, other.start + int(same[0]))])
                    break
        return found

    def _near_duplicates(self, one: DataSet, other: DataSet) -> Overlap:
        prompt = self._keys["prompt"]
        equal = _shared(prompt, one, other)
        leads, follows = np.zeros(len(prompt), dtype=bool), np.zeros(len(prompt), dtype=bool)
        leads[one.start : one.end], follows[other.start : other.end] = ~equal[0], ~equal[1]
        rank = ranks(shuffled(self._keys["content"], 0))
        before, partner = self._near.crowded, dict[int, int]()
        for pairs in self._near.matches(self.threshold, rank, leads, follows):
            partner.update(zip(pairs.followers.tolist(), pairs.leaders.tolist(), strict=True))
        examples = [[self._places.where(partner[row]), self._places.where(row)] for row in sorted(partner)[:EXAMPLES]]
        cut_short = self._near.crowded - before
        return Overlap(
            one.source,
            other.source,
            "near_duplicate",
            len(set(partner.values())),
            len(partner),
            one.bad,
            other.bad + cut_short,
            examples,
        )


def _rows(source: str) -> Iterator[Found[Record] | LeftOut | BadRow]:
    """Give what any stage would read; of the records of one row, each prompt once. Raises ConfigError."""
    where, said = "", set[tuple[str | None, ...]]()
    try:
        for item in stream(source, Record):  # type: ignore[type-abstract]
            if isinstance(item, Found):
                where, said = item.where, said if item.where == where else set()
                says = (prompt_text(item.record), item.record.user, item.record.conversation)
                if says in said:
                    continue
                said.add(says)
            yield item
    except AmbiguousFormat as error:
        raise error.for_source(source) from None


def _shared(column: np.ndarray[Any, Any], one: DataSet, other: DataSet) -> tuple[Mask, Mask]:
    """Mark the rows of each whose value, unless it is 0, the other has too."""
    mine, theirs = column[one.start : one.end], column[other.start : other.end]
    return np.isin(mine, theirs) & (mine != 0), np.isin(theirs, mine) & (theirs != 0)
