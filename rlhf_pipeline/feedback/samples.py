"""The record between sampling and labelling: a prompt with K completions that nobody has ranked yet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Prompt, Ranking, Record, Text, check_prompt, shown


@dataclass(frozen=True)
class Samples(Record):
    """A prompt with K completions of one model; `finished`: K booleans, False where a completion was cut off."""

    needs = "`rlhf sample` writes `prompt`, `completions` and `finished`"
    prompt: Text
    completions: list[str]
    finished: list[bool]
    facts: dict[str, Any] = field(default_factory=dict, kw_only=True)
    model: str | None = field(default=None, kw_only=True)

    def check(self, where: str) -> None:
        """Raise DataError unless every completion is a string with its own `finished`."""
        check_prompt(self.prompt, where)
        if not isinstance(self.completions, list) or not all(isinstance(text, str) for text in self.completions):
            raise DataError(f"{where}: `completions` is {shown(self.completions)}; expected a list of strings")
        if not isinstance(self.finished, list) or [type(x) for x in self.finished] != [bool] * len(self.completions):
            raise DataError(f"{where}: `finished` is {shown(self.finished)}; expected one boolean per completion")

    def as_prompt(self) -> Prompt:
        """The prompt alone, with its facts, for a judge or a labeller."""
        return Prompt(self.prompt, facts=self.facts, user=self.user, source=self.source, id=self.id)

    def ranked(self, ranks: list[int], labeler: str) -> Ranking:
        """These samples with the ranks that `labeler` gave them."""
        return Ranking(
            self.prompt,
            list(self.completions),
            ranks,
            finished=self.finished,
            labeler=labeler,
            user=self.user,
            source=self.model,
            id=self.id,
        )


def read_samples(path: Path) -> list[Samples]:
    """Read what `rlhf sample` wrote; raises DataError naming file and line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; `rlhf sample --output {path}` writes it")
    return list(_records(path))


def _records(path: Path) -> Iterator[Samples]:
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON ({error.msg}); {Samples.needs}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: {shown(row)} is no object; {Samples.needs}")
        yield Samples.from_dict(row, where)
