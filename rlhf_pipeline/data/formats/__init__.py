"""How a row of a known layout becomes records: a module each, with `matches(row)` and `convert(row, kind, where)`.

`convert` gives records, or in place of one that its rules leave out, a string that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from rlhf_pipeline.data.formats import hh, oasst, tldr, trl, ultrafeedback
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record

Row = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """A layout of rows: how to recognise one row of it, and how to read it as a kind of record."""

    name: str
    matches: Callable[[Row], bool]
    convert: Callable[[Row, type[Record], str], Iterator[Record | str]]
    kinds: tuple[type[Record], ...]

    def records(self, row: Row, kind: type[Record], where: str) -> Iterator[Record | str]:
        """Convert a row. Raises ConfigError where this layout has no records of that kind, DataError on a bad row."""
        if kind not in self.kinds:
            there = ", ".join(_plural(kind) for kind in self.kinds)
            raise ConfigError(f"{where}: data of format {self.name} gives {there}, no {_plural(kind)}; pass other data")
        return self.convert(row, kind, where)


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
"""In the order of trying: `trl` says yes to every row."""


def named(data_format: str) -> Format | None:
    """Give the format of that name, None for "auto". Raises ConfigError naming the nearest one."""
    if data_format == "auto" or data_format in FORMATS:
        return FORMATS.get(data_format)
    names = ["auto", *FORMATS]
    near = get_close_matches(data_format, names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(names)}"
    raise ConfigError(f"--data_format: `{data_format}` is not a format; {hint}")


def recognise(row: Row) -> Format:
    """Give the first format that recognises the row."""
    return next(form for form in FORMATS.values() if form.matches(row))
