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
from rlhf_pipeline.records import Record

Row = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """A layout of rows: how to recognise one row of it, and how to read it as a kind of record."""

    matches: Callable[[Row], bool]
    convert: Callable[[Row, type[Record], str], Iterator[Record | str]]


FORMATS = {
    "hh": Format(hh.matches, hh.convert),
    "oasst": Format(oasst.matches, oasst.convert),
    "tldr": Format(tldr.matches, tldr.convert),
    "ultrafeedback": Format(ultrafeedback.matches, ultrafeedback.convert),
    "trl": Format(trl.matches, trl.convert),
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
