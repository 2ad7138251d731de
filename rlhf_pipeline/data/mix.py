"""A YAML file in place of a data set: where the rows are, what their columns mean, and how sources are mixed.

    data: seeds.jsonl                             sources:
    columns:                                        - {data: seeds.jsonl, data_format: alpaca, weight: 2}
      prompt: "{instruction}\\n\\n{input?}"             - {data: Anthropic/hh-rlhf, split: test, weight: 0.5, name: hh}
      completion: output

`weight` is the multiple of a source's records: 2 gives each twice, 0.5 those about half whose content hashes into the
lower half, 2.5 both. So the choice depends on nothing but the record, and a smaller weight takes a subset of a larger
one's. Sources follow each other in their order; trainers shuffle. Left out: a mix inside a mix, proportions of a total.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_pipeline.config import Setting, flat_yaml, refuse_unknown, take
from rlhf_pipeline.data import formats, hub
from rlhf_pipeline.data.formats import Format
from rlhf_pipeline.data.mapping import ColumnMap
from rlhf_pipeline.errors import ConfigError
from rlhf_pipeline.records import Record, canonical, shown

SUFFIXES = (".yaml", ".yml")
_SOURCES = "sources"


@dataclass(frozen=True)
class Part:
    """One source of a mix; `name` becomes the `source` of its records that have none."""

    data: str = ""
    data_format: str = "auto"
    split: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    each: str | None = None
    chat: bool = True
    weight: float = 1.0
    name: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if not self.data:
            raise ConfigError("`data` is missing; it names a file, a folder or a hub id")
        if is_mix(self.data):
            raise ConfigError(f"`data` is {self.data}; a YAML file in another one is not read: write its sources here")
        if self.columns and self.data_format != "auto":
            raise ConfigError("`data_format` and `columns` both say what the columns mean; keep one")
        if not self.columns and (self.each is not None or not self.chat):
            raise ConfigError("`each` and `chat` belong to `columns`, which are not there")
        if not (0 < self.weight < math.inf):
            raise ConfigError(f"`weight` must be a positive number, not {self.weight}")


@dataclass(frozen=True)
class Source:
    """One source, ready to be read: where, in which format (None: recognise it), how often, and as whose."""

    data: str
    split: str | None
    form: Format | None
    weight: float = 1.0
    name: str | None = None

    def copies(self, record: Record) -> int:
        """Say how often the record is taken: the whole part of the weight, and once more for a part of the records."""
        whole = int(self.weight)
        if whole == self.weight:
            return whole
        said = f"{type(record).__name__} {canonical(record.to_dict())}".encode()
        drawn = int.from_bytes(hashlib.sha256(said).digest()[:8]) / 2**64
        return whole + (drawn < self.weight - whole)


def is_mix(source: str) -> bool:
    """Say whether `source` is a YAML file, not data."""
    return Path(source).suffix.lower() in SUFFIXES


def read_mix(file: str) -> list[Source]:
    """Read the sources that a YAML file names. Raises ConfigError with the line, or the number of the source."""
    if not Path(file).is_file():
        raise ConfigError(f"{file}: no such file; a mix is YAML with `data` or `sources`")
    settings = flat_yaml(file)
    if _SOURCES not in settings:
        return [_source(settings, file, named=False)]
    others = {name: setting for name, setting in settings.items() if name != _SOURCES}
    if others:
        first = next(iter(others.values()))
        raise ConfigError(f"{first.where}: `{first.name}` stands beside `sources`; move it into each of them")
    where, listed = settings[_SOURCES].where, settings[_SOURCES].value
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise ConfigError(f"{where}: `sources` is {shown(listed)}; expected a list of `data: ...` with their settings")
    return [
        _source(_settings(item, f"{where}: sources[{n}]"), f"{where}: sources[{n}]") for n, item in enumerate(listed)
    ]


def _settings(item: Mapping[Any, Any], where: str) -> dict[str, Setting]:
    return {str(name): Setting(str(name), value, where) for name, value in item.items()}


def _source(settings: Mapping[str, Setting], where: str, *, named: bool = True) -> Source:
    refuse_unknown(settings, Part)
    try:
        part = take(Part, settings)
        form = _form(part, settings)
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    return Source(part.data, part.split, form, part.weight, part.name or (_short(part.data) if named else None))


def _short(data: str) -> str:
    """Name a source by its hub id, or the last part of its path: the same on every machine."""
    return data if hub.is_id(data) else Path(data).name


def _form(part: Part, settings: Mapping[str, Setting]) -> Format | None:
    if not part.columns:
        return formats.named(part.data_format)
    place = settings["columns"].where
    columns = ColumnMap.parse(part.columns, place, part.each, part.chat)
    return formats.mapped(columns, f"of the columns in {place}")
