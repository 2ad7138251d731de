"""What a data set is like, counted row by row; memory does not grow with its size but for 16 bytes a record.

Left out: what needs two rows at once beyond "the same", such as near-duplicates (`rlhf data curate`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rlhf_pipeline.data.sketches import Lengths, Same, Sample, Top, share
from rlhf_pipeline.data.sources import BadRow, Found, LeftOut
from rlhf_pipeline.records import (
    ORIGIN,
    Document,
    Ranking,
    Record,
    Text,
    canonical,
    completion_text,
    completions_of,
)

SHOWN_BAD = 5
_ENDS = frozenset(".!?:;\"'`)]}>*|…”’»。！？\n")


@dataclass(frozen=True)
class Size:
    """Lengths of one record: its prompt (or its text), and each of its completions."""

    prompt: int
    completions: list[int]


class Tally:
    """Counts over the items of `sources.stream`; lengths are counted in `unit`, of which a row may have `limit`.

    `doubts`: what looks wrong before anything is counted.
    """

    def __init__(self, unit: str, examples: int, limit: int | None = None) -> None:
        self.unit = unit
        self.counts: Counter[str] = Counter()
        self.doubts: list[str] = []
        self.bad: list[BadRow] = []
        self.left_out: Counter[str] = Counter()
        self.lengths = {"prompt": Lengths(), "completion": Lengths(), "row": Lengths(limit)}
        self.of_completions, self.turns = Counter[int](), Counter[int]()
        self.names = {name: Top() for name in ("user", "labeler", "source")}
        self.same = {"prompts": Same(), "records": Same()}
        self.examples: Sample[Found[Any]] = Sample(examples, [])

    def add_other(self, item: LeftOut | BadRow) -> None:
        """Count what is no record."""
        if isinstance(item, LeftOut):
            self.left_out[item.reason] += 1
            return
        self.counts["bad"] += 1
        if len(self.bad) < SHOWN_BAD:
            self.bad.append(item)

    def add(self, item: Found[Any], size: Size) -> None:
        """Count a record of these lengths."""
        record = item.record
        self.counts["records"] += 1
        self.examples.add(item)
        self._add_lengths(size)
        self._add_origin(record)
        if isinstance(record, Document):
            self.same["records"].add(record.text)
            return
        self._add_prompt(record.prompt)
        self.same["records"].add(canonical({k: v for k, v in record.to_dict().items() if k not in ORIGIN}))
        completions = completions_of(record)
        for completion in completions:
            self._add_completion(record.prompt, completion)
        if isinstance(record, Ranking):
            self._add_ranking(record, size)

    def _add_lengths(self, size: Size) -> None:
        self.lengths["prompt"].add(size.prompt)
        for length in size.completions:
            self.lengths["completion"].add(length)
        self.lengths["row"].add(size.prompt + max(size.completions, default=0))

    def _add_origin(self, record: Record) -> None:
        for name, top in self.names.items():
            value = getattr(record, name, None)
            if value is not None:
                top.add(value)

    def _add_prompt(self, prompt: Text) -> None:
        self.same["prompts"].add(prompt if isinstance(prompt, str) else canonical(prompt))
        if isinstance(prompt, str):
            self.counts["plain"] += 1
        else:
            self.turns[sum(message["role"] == "user" for message in prompt)] += 1
            self.counts["with_system"] += any(message["role"] == "system" for message in prompt)

    def _add_completion(self, prompt: Text, completion: Text) -> None:
        text = completion_text(completion)
        self.counts["completions"] += 1
        self.counts["empty"] += not text
        self.counts["without_end"] += bool(text) and text.rstrip(" ")[-1:] not in _ENDS
        glued = isinstance(prompt, str) and text[:1].isalnum() and not prompt[-1:].isspace()
        self.counts["glued"] += glued

    def _add_ranking(self, ranking: Ranking, size: Size) -> None:
        count = len(ranking.completions)
        self.of_completions[count] += 1
        self.counts["unfinished"] += sum(not ranking.is_finished(number) for number in range(count))
        self.counts["says_finished"] += ranking.finished is not None
        self.counts["all_tied"] += len(set(ranking.ranks)) == 1
        for one, other in combinations(range(count), 2):
            self._add_pair(ranking, size, one, other)

    def _add_pair(self, ranking: Ranking, size: Size, one: int, other: int) -> None:
        self.counts["pairs"] += 1
        if ranking.completions[one] == ranking.completions[other]:
            self.counts["same_text"] += 1
        if ranking.ranks[one] == ranking.ranks[other]:
            self.counts["ties"] += 1
            return
        better, worse = (one, other) if ranking.ranks[one] < ranking.ranks[other] else (other, one)
        if size.completions[better] != size.completions[worse]:
            self.counts["unequal_length"] += 1
            self.counts["longer_preferred"] += size.completions[better] > size.completions[worse]

    def to_dict(self) -> dict[str, Any]:
        """Give every number, as JSON."""
        return {
            "unit": self.unit,
            "records": self.counts["records"],
            "bad_rows": self.counts["bad"],
            "first_bad_rows": [{"where": bad.where, "reason": bad.reason} for bad in self.bad],
            "left_out": dict(self.left_out.most_common()),
            "lengths": {name: lengths.to_dict() for name, lengths in self.lengths.items() if lengths.count},
            "prompts_plain": self.counts["plain"],
            "prompts_with_system": self.counts["with_system"],
            "user_turns": {str(turns): count for turns, count in sorted(self.turns.items())},
            **{f"{name}s": top.to_dict() for name, top in self.names.items() if top.total},
            "same": {name: same.to_dict() for name, same in self.same.items() if same.hashes},
            "completions": {name: self.counts[name] for name in ("completions", "empty", "without_end", "glued")},
            **({"rankings": self._rankings()} if self.of_completions else {}),
        }

    def _rankings(self) -> dict[str, Any]:
        names = ("pairs", "ties", "same_text", "all_tied", "unfinished", "says_finished")
        longer = share(self.counts["longer_preferred"], self.counts["unequal_length"])
        return {
            "completions_per_prompt": {str(k): count for k, count in sorted(self.of_completions.items())},
            **{name: self.counts[name] for name in names},
            "longer_preferred_share": round(longer, 3),
        }
