"""Anybody's columns as records: each row is written in this project's columns, and read as such (formats/trl.py).

`columns` says where each field comes from (templates.py). A Demonstration has prompt and completion, or messages; a
Ranking prompt, and chosen and rejected, or completions (a list of columns, or a column with a list) and one of ranks
(the lower the better), scores (the higher the better) and best (the number of the best, from 0, or its column's name).
Numbers may be written as text, as they are in every .csv.
A Prompt has prompt, and facts by name; a Document text. `each` names a column with a list: every element is a record.
With `chat`, a prompt that is text becomes a message of the user. Ready-made ones are the files of mappings/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from rlhf_pipeline.data.formats import trl
from rlhf_pipeline.data.formats.scores import ranks
from rlhf_pipeline.data.templates import Column, Template
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record, shown

Row = dict[str, Any]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
ORIGIN = ("user", "source", "id", "conversation", "labeler")
ORDERS = ("ranks", "scores", "best")
FIELDS = ("prompt", "completion", "messages", "chosen", "rejected", "completions", *ORDERS, "text", "facts", *ORIGIN)
_KINDS: list[tuple[set[str], tuple[type[Record], ...]]] = [
    ({"messages"}, (Demonstration, Prompt)),
    ({"prompt", "completion"}, (Demonstration, Prompt)),
    ({"prompt", "chosen", "rejected"}, (Ranking, Prompt)),
    *(({"prompt", "completions", order}, (Ranking, Prompt)) for order in ORDERS),
    ({"prompt"}, (Prompt,)),
    ({"text"}, (Document,)),
]
"""The fields beside facts and origin that go together, and what they give."""


@dataclass(frozen=True)
class ColumnMap:
    """How rows with columns of their own are read."""

    fields: Mapping[str, Template | list[Template]]
    facts: Mapping[str, Template]
    kinds: tuple[type[Record], ...]
    each: str | None = None
    chat: bool = True

    @classmethod
    def parse(cls, columns: Mapping[str, Any], where: str, each: str | None = None, chat: bool = True) -> ColumnMap:
        """Check `columns` as YAML gives them; raises ConfigError, beginning with `where`."""
        for name in columns:
            if name not in FIELDS:
                near = get_close_matches(str(name), FIELDS, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"expected some of {', '.join(FIELDS)}"
                raise ConfigError(f"{where}: `{name}` is not a field of a record; {hint}")
        facts = columns.get("facts", {})
        if not isinstance(facts, dict):
            raise ConfigError(f"{where}: `facts` is {shown(facts)}; expected names and their columns")
        said = {name: value for name, value in columns.items() if name != "facts"}
        return cls(
            {
                name: _parsed(value, f"{where}: `{name}`", name in ("completions", *ORDERS))
                for name, value in said.items()
            },
            {str(name): Template.parse(value, f"{where}: fact `{name}`") for name, value in facts.items()},
            _kinds(said, where),
            each,
            chat,
        )

    @cached_property
    def _templates(self) -> list[Template]:
        lists = [value if isinstance(value, list) else [value] for value in self.fields.values()]
        return [*(template for templates in lists for template in templates), *self.facts.values()]

    def matches(self, row: Row) -> bool:
        """Say whether a row has every column that must be there."""
        needed = {column.top for template in self._templates for column in template.columns if not column.optional}
        return needed <= row.keys()

    @property
    def optional(self) -> frozenset[Column]:
        """The columns that may be absent from a row."""
        columns = (column for template in self._templates for column in template.columns)
        return frozenset(column for column in columns if column.optional)

    def convert(self, row: Row, kind: type[Record], where: str) -> Iterator[Record | str]:
        """Give the records of a row, or why one is left out. Raises DataError."""
        if self.each is None:
            yield from trl.convert(self._written(row, kind, where), kind, where)
            return
        elements = row.get(self.each)
        if not isinstance(elements, list):
            raise DataError(f"{where}: `{self.each}` is {shown(elements)}; expected a list, as the mapping says `each`")
        if not elements:
            yield f"an empty list of {self.each}"
        for number, element in enumerate(elements):
            inside = f"{where}: {self.each}[{number}]"
            yield from trl.convert(self._written(row | {self.each: element}, kind, inside), kind, inside)

    def _written(self, row: Row, kind: type[Record], where: str) -> Row:
        """Write a row in this project's columns, those that `kind` has."""
        wanted = [name for name in self.fields if kind is not Prompt or name in ("prompt", "messages", *ORIGIN)]
        written = {name: _value(self.fields[name], row, where) for name in wanted}
        silent = next((name for name in wanted if written[name] is None and name not in ORIGIN), None)
        if silent is not None:
            raise DataError(f"{where}: no column says anything for `{silent}`; the row has {_names(row)}")
        if self.chat and isinstance(written.get("prompt"), str):
            written["prompt"] = [{"role": "user", "content": written["prompt"]}]
        if kind is Ranking:
            self._rank(written, where)
        facts = {name: template.value(row, where) for name, template in self.facts.items()} if kind is Prompt else {}
        return {name: value for name, value in written.items() if value is not None} | (
            {"facts": facts} if facts else {}
        )

    def _rank(self, written: Row, where: str) -> None:
        for order in {"ranks", "scores"} & written.keys():
            value = written[order]
            written[order] = [_number(item) for item in value] if isinstance(value, list) else value
        if "scores" in written:
            written["ranks"] = ranks(written["scores"], where)
        if "best" in written:
            names, completions = self.fields["completions"], written["completions"]
            if not isinstance(completions, list):
                raise DataError(f"{where}: `completions` is {shown(completions)}; expected a list of texts")
            plain = [name.text for name in names] if isinstance(names, list) else []
            best = _best(written.pop("best"), plain, len(completions), where)
            written["ranks"] = [int(number != best) for number in range(len(completions))]


def _names(row: Row) -> str:
    return ", ".join(f"`{name}`" for name in row) or "nothing"


def _parsed(value: Any, where: str, may_be_list: bool) -> Template | list[Template]:
    if may_be_list and isinstance(value, list):
        return [Template.parse(item, where) for item in value]
    return Template.parse(value, where)


def _value(template: Template | list[Template], row: Row, where: str) -> Any:
    return [one.value(row, where) for one in template] if isinstance(template, list) else template.value(row, where)


def _kinds(columns: Mapping[str, Any], where: str) -> tuple[type[Record], ...]:
    said = set(columns) - set(ORIGIN)
    for fields, kinds in _KINDS:
        if said == fields:
            return kinds
    together = "; ".join(", ".join(name for name in FIELDS if name in fields) for fields, _ in _KINDS)
    seen = ", ".join(name for name in FIELDS if name in said) or "nothing"
    raise ConfigError(f"{where}: {seen} do not make a record; expected one of: {together}")


def _number(value: Any) -> Any:
    """Read a number that is written as text, a whole one as an int; give anything else as it is."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return value
    number = float(value)
    return int(number) if number.is_integer() else number


def _best(best: Any, names: list[str], count: int, where: str) -> int:
    if best in names:
        return names.index(best)
    number = _number(best)
    if type(number) is not int or not 0 <= number < count:
        which = f"0 to {count - 1}" + (f", or one of {', '.join(names)}" if names else "")
        raise DataError(f"{where}: the best is {shown(best)}; expected {which}")
    return number
