"""Rows on disk, and in memory what a decision about them needs: six hashes of 8 bytes each.

`RowFile` holds the rows that may still be kept, in order, each with its place. Left out: compression.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlhf_pipeline.data.curation.text import content_hash, hash64, normalised, prompt_text
from rlhf_pipeline.data.splits import opening
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record


class RowFile:
    """A file of (place, row): written once, then read in order or by number."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._starts = array("Q")

    def __len__(self) -> int:
        """How many rows were added."""
        return len(self._starts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, where: str, row: str) -> None:
        """Append a row, which is JSON on one line and so has no tab in it, or empty."""
        self._starts.append(self._file.tell())
        self._file.write(f"{json.dumps(where)}\t{row}\n".encode())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Give (place, row) in order."""
        self._file.flush()
        with self._path.open("rb") as file:
            yield from map(self._parsed, file)

    def where(self, number: int) -> str:
        """Give the place of row `number`."""
        self._file.seek(self._starts[number])
        return self._parsed(self._file.readline())[0]

    @staticmethod
    def _parsed(line: bytes) -> tuple[str, str]:
        where, _, row = line.decode().rstrip("\n").partition("\t")
        return json.loads(where), row


class Keys:
    """Hashes of every row by which rows are compared; 0 where a row does not say."""

    NAMES = ("content", "prompt", "prefix", "opening", "user", "conversation")

    def __init__(self, prefix_characters: int = 0) -> None:
        """`prefix_characters`: how much of a prompt "prefix" looks at; a shorter prompt is its own prefix."""
        self._prefix = prefix_characters
        self._columns = {name: array("Q") for name in self.NAMES}

    def __len__(self) -> int:
        """How many rows were added."""
        return len(self._columns["content"])

    def add(self, record: Record) -> None:
        """Take the hashes of the next row."""
        assert isinstance(record, Demonstration | Ranking | Prompt | Document)
        prompt = normalised(prompt_text(record))
        hashes = (
            content_hash(record),
            hash64(prompt),
            hash64(prompt[: self._prefix]) if self._prefix else 0,
            hash64(normalised(opening(record))),
            hash64(record.user) if record.user else 0,
            hash64(record.conversation) if record.conversation else 0,
        )
        for column, value in zip(self._columns.values(), hashes, strict=True):
            column.append(value)

    def __getitem__(self, name: str) -> NDArray[np.uint64]:
        """Give one of `NAMES` for all rows: (rows,)."""
        return np.frombuffer(self._columns[name], dtype=np.uint64) if len(self) else np.zeros(0, dtype=np.uint64)
