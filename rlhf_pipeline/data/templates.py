"""What a mapping writes for a value: a column, or text with columns in it.

    output                        the value of a column as it is
    info.post                     a key of an object in a column; after a list, that key of every element
    {instruction}\\n\\n{input?}     text; `{{` and `}}` are braces

A column must be there and say something. With `?` it may be absent, null or empty; a paragraph of text (what stands
between blank lines) with such a column is left out then. Left out: conditions, filters, arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.records import is_finite, shown

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Column:
    """A column, or a key inside it; `optional` where it may say nothing."""

    name: str
    optional: bool

    @classmethod
    def parse(cls, text: str) -> Column:
        """Read `name` or `name?`."""
        return cls(text.strip().removesuffix("?"), text.strip().endswith("?"))

    @property
    def top(self) -> str:
        """The column of the row that it begins with."""
        return self.name.partition(".")[0]

    def is_in(self, row: Mapping[str, Any]) -> bool:
        """Say whether a row has it, even if it says nothing there."""
        return self.name in row or _leads_somewhere(row, self.name.split("."))

    def value(self, row: Mapping[str, Any], where: str) -> Any:
        """Give the value, or None where it says nothing and may. Raises DataError where it may not."""
        value = row[self.name] if self.name in row else _step(row, self.name.split("."))
        empty = isinstance(value, str) and not value.strip()
        if value is not None and not empty:
            return value
        if self.optional:
            return None
        if empty:
            raise DataError(f"{where}: column `{self.name}` is empty; where it may be, the mapping says `{self.name}?`")
        has = ", ".join(f"`{name}`" for name in row) or "nothing"
        raise DataError(f"{where}: no column `{self.name}`; the row has {has}")


def _step(value: Any, path: list[str]) -> Any:
    """Follow a path into objects and lists; None where it leads nowhere."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        return _step(value.get(first), rest)
    if isinstance(value, list) and first.isdecimal():
        return _step(value[int(first)], rest) if int(first) < len(value) else None
    return [_step(item, path) for item in value] if isinstance(value, list) else None


def _leads_somewhere(value: Any, path: list[str]) -> bool:
    """Say whether there is anything, be it null, where `_step` ends."""
    if not path:
        return True
    first, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        return first in value and _leads_somewhere(value[first], rest)
    if isinstance(value, list) and first.isdecimal():
        return int(first) < len(value) and _leads_somewhere(value[int(first)], rest)
    return isinstance(value, list) and any(_leads_somewhere(item, path) for item in value)


@dataclass(frozen=True)
class Template:
    """A value of a mapping: one column, or text with columns in it."""

    text: str

    @classmethod
    def parse(cls, text: object, where: str) -> Template:
        """Check what a mapping says. Raises ConfigError, beginning with `where`, where it is no column and no text."""
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where} is {shown(text)}; expected a column, or text with {{columns}} in quotes")
        for match in _BRACES.finditer(text):
            if match.group() in ("{", "}") or (match[1] is not None and not match[1].strip(" ?")):
                raise ConfigError(f"{where}: {shown(text)} has a brace without a column; write {{{{ for a brace itself")
        template = cls(text)
        if template.is_text and not template.columns:
            raise ConfigError(f"{where}: {shown(text)} has no column in it")
        return template

    @property
    def is_text(self) -> bool:
        """Say whether it is text with columns in it, not one column as it is."""
        return "{" in self.text or "}" in self.text

    @cached_property
    def columns(self) -> list[Column]:
        """The columns it needs."""
        if not self.is_text:
            return [Column.parse(self.text)]
        return [Column.parse(match[1]) for match in _BRACES.finditer(self.text) if match[1] is not None]

    @cached_property
    def _paragraphs(self) -> list[str]:
        return self.text.split("\n\n")

    def value(self, row: Mapping[str, Any], where: str) -> Any:
        """Fill it from a row. Raises DataError where a column is missing, or is no text inside text."""
        if not self.is_text:
            return self.columns[0].value(row, where)
        return "\n\n".join(_filled(self._paragraphs, row, where)) or None


def _filled(paragraphs: list[str], row: Mapping[str, Any], where: str) -> Iterator[str]:
    for paragraph in paragraphs:
        texts: list[str | None] = []
        for match in _BRACES.finditer(paragraph):
            column = Column.parse(match[1]) if match[1] is not None else None
            texts.append(match.group()[0] if column is None else _text(column, row, where))
        if None not in texts:
            filled = iter(texts)
            yield _BRACES.sub(lambda _, filled=filled: str(next(filled)), paragraph)  # type: ignore[misc]


def _text(column: Column, row: Mapping[str, Any], where: str) -> str | None:
    value = column.value(row, where)
    if value is None or isinstance(value, str):
        return value
    if is_finite(value):
        return str(value)
    raise DataError(
        f"{where}: column `{column.name}` is {shown(value)}; inside text only text and finite numbers can stand"
    )
