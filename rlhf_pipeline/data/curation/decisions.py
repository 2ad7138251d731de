"""Decisions that need all rows: duplicates, the limit for each user, and what the two sides may not share.

In memory 17 bytes a row: which decision dropped it, for the likeness of which row, and how alike they are.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from rlhf_pipeline.data.curation.groups import Hashes, Losers, Mask, all_but_best, all_but_some, ranks, shuffled
from rlhf_pipeline.data.curation.near_duplicates import NearDuplicates, clusters
from rlhf_pipeline.data.curation.report import Report
from rlhf_pipeline.data.curation.rows import Keys, RowFile
from rlhf_pipeline.data.curation.settings import CurateSettings
from rlhf_pipeline.data.curation.sides import like_held_out, shared_with


class Decisions:
    """Takes the rows that passed the first pass, `held` saying with 1 which are held out, and decides."""

    def __init__(
        self,
        settings: CurateSettings,
        report: Report,
        rows: RowFile,
        keys: Keys,
        near: NearDuplicates | None,
        held: bytearray,
    ) -> None:
        self.settings, self.report, self.rows, self.keys, self.near = settings, report, rows, keys, near
        self.alive = np.ones(len(rows), dtype=bool)
        self.held = np.frombuffer(bytes(held), dtype=bool) if held else np.zeros(len(rows), dtype=bool)
        self.rank = ranks(shuffled(keys["content"], settings.seed))
        self._reasons: list[tuple[str, str]] = [("", "")]
        self._reason = np.zeros(len(rows), dtype=np.uint8)
        self._because = np.full(len(rows), -1, dtype=np.int64)

    def take(self) -> bytes:
        """Decide, report, write the dropped rows aside; give for each row 0 dropped, 1 train, 2 eval."""
        settings, keys = self.settings, self.keys
        if settings.exact_duplicates:
            self._duplicates("exact duplicates", "says the same", all_but_best(keys["content"], self.rank, self.alive))
        if settings.prefix_characters:
            reason = f"same first {settings.prefix_characters} characters of the prompt"
            same = all_but_best(keys["prefix"], self.rank, self.alive, self._together())
            self._duplicates("shared prefix", reason, same)
        if settings.near_duplicates and self.near is not None:
            found = self.near.matches(settings.near_duplicates, self.rank, leads=self.alive, follows=self.alive)
            cluster = clusters(found, len(self.rows))
            same = all_but_best(cluster, self.rank, self.alive, self._together())
            self._duplicates("near-duplicates", "prompt in the same cluster", same)
        if settings.max_per_user:
            self._limit_users(settings.max_per_user)
        if settings.split_by:
            self._part(settings)
        self._note_what_was_not_compared()
        self._write_dropped()
        return np.where(self.alive, 1 + self.held, 0).astype(np.uint8).tobytes()

    def _together(self) -> list[Hashes]:
        """Give by what rows whose prompts resemble each other stay together: of rankings, all of one prompt do."""
        names = ["conversation", *(["prompt"] if self.settings.kind == "ranking" else [])]
        return [self.keys[name] for name in names]

    def _duplicates(self, step: str, reason: str, same: Losers) -> None:
        self.report.begin(step, int(self.alive.sum()))
        self._drop(step, reason, same.lost, same.to)

    def _limit_users(self, most: int) -> None:
        user, step = self.keys["user"], "rows per user"
        self.report.begin(step, int(self.alive.sum()))
        if unknown := int((self.alive & (user == 0)).sum()):
            self.report.notes.append(f"{step}: {unknown} rows have no user, so the limit of {most} passes them")
        self._drop(step, f"more than {most} of one user", all_but_some(user, self.rank, self.alive, most))

    def _part(self, settings: CurateSettings) -> None:
        """Set training rows aside that share with held-out rows what would make the evaluation too easy."""
        step = "train apart from eval"
        self.report.begin(step, int(self.alive.sum()))
        for name, reason in (
            ("prompt", "the prompt of a held-out row"),
            ("opening", "opens like a held-out row"),
            ("conversation", "of the conversation of a held-out row"),
        ):
            shared = shared_with(self.keys[name], self.alive & self.held, self.alive & ~self.held)
            self._drop(step, reason, shared.lost, shared.to)
        if settings.apart and self.near is not None:
            held, train = self.alive & self.held, self.alive & ~self.held
            alike = like_held_out(held, train, self.near, settings.apart, self.rank)
            self._drop(step, "near-duplicate of a held-out row", alike.lost, alike.to)

    def _drop(self, step: str, reason: str, lost: Mask, because: NDArray[np.int64] | None = None) -> None:
        self._reason[lost] = len(self._reasons)
        self._reasons.append((step, reason))
        if because is not None:
            self._because[lost] = because[lost]
        self.alive &= ~lost

    def _note_what_was_not_compared(self) -> None:
        if self.near is not None and self.near.crowded:
            cut_short = (
                f"near-duplicates: {self.near.crowded} times a row was not compared with all of a crowded bucket"
            )
            self.report.notes.append(f"{cut_short}; raise the threshold")

    def _write_dropped(self) -> None:
        """Report and write aside, in the order of the rows."""
        dropped = np.flatnonzero(self._reason)
        numbers = iter(dropped.tolist())
        following = next(numbers, None)
        for number, (where, row) in enumerate(self.rows):
            if number != following:
                continue
            step, reason = self._reasons[self._reason[number]]
            like = int(self._because[number])
            self.report.drop(
                step, where, f"{reason}: {self.rows.where(like)}" if like >= 0 else reason, json.loads(row)
            )
            following = next(numbers, None)
