"""How a row of a known layout becomes records: a module each, with `matches(row)` and `convert(row, kind, where)`.

`convert` gives records, or in place of one that its rules leave out, a string that says why. Layouts that only name
their columns otherwise need no module: they are mappings (data/mapping.py), ready-made ones in data/mappings/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from rlhf_pipeline.config import flat_yaml
from rlhf_pipeline.data.formats import hh, oasst, tldr, trl, ultrafeedback
from rlhf_pipeline.data.mapping import ColumnMap
from rlhf_pipeline.data.templates import Column
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record, fact_problem

Row = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """A layout of rows: how to recognise one row of it, and how to read it as a kind of record."""

    name: str
    matches: Callable[[Row], bool]
    convert: Callable[[Row, type[Record], str], Iterator[Record | str]]
    kinds: tuple[type[Record], ...]
    optional: frozenset[Column] = frozenset()
    """Columns that a row may lack, but not every row."""

    def records(self, row: Row, kind: type[Record], where: str) -> Iterator[Record | str]:
        """Convert a row; `Record` is all kinds. Raises ConfigError where there are no such records, DataError."""
        if kind is Record:
            return iter(self._of_any_kind(row, where))
        if kind not in self.kinds:
            there = ", ".join(_plural(kind) for kind in self.kinds)
            raise ConfigError(f"{where}: data of format {self.name} gives {there}, no {_plural(kind)}; pass other data")
        return self.convert(row, kind, where)

    def _of_any_kind(self, row: Row, where: str) -> list[Record | str]:
        """Convert a row to every kind that it can be read as, without facts where these are in the way of all.

        Raises DataError where that is none.
        """
        given: list[Record | str] = []
        refused: list[DataError] = []
        for kind in self.kinds:
            try:
                given += self.convert(row, kind, where)
            except DataError as error:
                refused.append(error)
        if len(refused) == len(self.kinds):
            if (bare := {name: value for name, value in row.items() if _may_be_kept(name, value)}) != row:
                return self._of_any_kind(bare, where)
            raise refused[self.kinds.index(Prompt) if Prompt in self.kinds else 0]
        return given


def _may_be_kept(name: str, value: Any) -> bool:
    """Say whether a prompt could keep a column as a fact."""
    return fact_problem(name, value) is None and (name != "facts" or isinstance(value, dict))


class AmbiguousFormat(ConfigError):
    """A row fits several mappings; `name` is one of them."""

    def __init__(self, where: str, names: list[str]) -> None:
        self.where, self.names, self.name = where, " and ".join(names), names[0]
        super().__init__(f"{where}: fits the mappings {self.names}; choose with `--data_format {self.name}`")

    def for_source(self, source: str) -> ConfigError:
        """Give the error for a command that reads several sources, and so has no setting for the format of one."""
        way = f"write a YAML file with the lines `data: {source}` and `data_format: {self.name}`, and name that file"
        return ConfigError(f"{self.where}: fits the mappings {self.names}; {way}")


def _plural(kind: type[Record]) -> str:
    return f"{kind.__name__.lower()}s"


FORMATS = {
    form.name: form
    for form in (
        Format("hh", hh.matches, hh.convert, (Ranking, Prompt)),
        Format("oasst", oasst.matches, oasst.convert, (Demonstration, Ranking, Prompt)),
        Format("tldr", tldr.matches, tldr.convert, (Demonstration, Ranking, Prompt)),
        Format("ultrafeedback", ultrafeedback.matches, ultrafeedback.convert, (Ranking, Prompt)),
        Format("trl", trl.matches, trl.convert, (Demonstration, Ranking, Prompt, Document)),
    )
}
"""In the order of trying; `trl`, which says yes to every row, comes after the mappings."""

MAPPINGS = {file.stem: file for file in sorted((Path(__file__).parents[1] / "mappings").glob("*.yaml"))}
"""The ready-made mappings, by name."""


def named(data_format: str) -> Format | None:
    """Give the format or mapping of that name, None for "auto". Raises ConfigError naming the nearest one."""
    if data_format == "auto" or data_format in FORMATS:
        return FORMATS.get(data_format)
    if data_format in MAPPINGS:
        return _ready_made(data_format)
    names = ["auto", *FORMATS, *MAPPINGS]
    near = get_close_matches(data_format, names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(names)}"
    raise ConfigError(f"--data_format: `{data_format}` is not a format; {hint}")


def mapped(columns: ColumnMap, name: str) -> Format:
    """Make a format of the columns that somebody named."""
    return Format(name, columns.matches, columns.convert, columns.kinds, columns.optional)


@cache
def _ready_made(name: str) -> Format:
    said = {key: setting.value for key, setting in flat_yaml(str(MAPPINGS[name])).items()}
    columns = ColumnMap.parse(where=name, **said)
    return Format(name, columns.matches, columns.convert, columns.kinds)


def recognise(row: Row, where: str = "the first row") -> Format:
    """Give the first format that recognises the row. Raises ConfigError where several mappings do."""
    *others, last = FORMATS.values()
    for form in others:
        if form.matches(row):
            return form
    fitting = [form for form in map(_ready_made, MAPPINGS) if form.matches(row)] if not _is_ours(row) else []
    if len(fitting) > 1:
        raise AmbiguousFormat(where, [form.name for form in fitting])
    return fitting[0] if fitting else last


def _is_ours(row: Row) -> bool:
    """Say whether the row has a field of a record besides `prompt`, so that no mapping is needed."""
    return not {"completion", "completions", "messages", "chosen", "text"}.isdisjoint(row)
