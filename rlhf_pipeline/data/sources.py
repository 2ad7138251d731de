"""Read a data set from wherever it is: a file, a folder, a data set saved by `datasets`, or a hub id.

`stream` gives one record after the other, whatever the size; `read` holds them all, which trainers need. A YAML file
names the columns of a source, or mixes several (mix.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from rlhf_pipeline.data import files, formats, hub
from rlhf_pipeline.data.json_rows import RawRow
from rlhf_pipeline.data.mix import Source, is_mix, read_mix
from rlhf_pipeline.errors import ConfigError, DataError, StorageError
from rlhf_pipeline.records import Record, fingerprint, printable

R = TypeVar("R", bound=Record)
OnBadRow = Literal["error", "skip"]
FIX_OR_SKIP = "fix the row or pass `--on_bad_row skip`"


@dataclass(frozen=True)
class BadRow:
    """A row that could not be used: where it is, why not, and its text, so that a stage can write it aside."""

    where: str
    reason: str
    raw: str

    def to_dict(self) -> dict[str, str]:
        """Give the JSON object that is written aside."""
        return asdict(self)


@dataclass(frozen=True)
class LeftOut:
    """What a format's own rules leave out of a row: where, and why in a few words."""

    where: str
    reason: str


@dataclass(frozen=True)
class Found(Generic[R]):
    """A record and where it is, as `file:line` where the file has lines."""

    where: str
    record: R


@dataclass(frozen=True)
class Rows(Generic[R]):
    """What was read: the records in order, where each is, the bad rows, and counts of what a format's rules dropped."""

    records: list[R]
    places: list[str]
    bad: list[BadRow]
    dropped: dict[str, int]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what the records say, whatever file they come from."""
        return fingerprint(self.records)

    def where(self, index: int) -> str:
        """Give the place of record `index`, as `file:line` where the file has lines."""
        return self.places[index]


def read(
    source: str,
    kind: type[R],
    *,
    on_bad_row: OnBadRow = "error",
    data_format: str = "auto",
    split: str | None = None,
) -> Rows[R]:
    """Read `source` as records of one kind.

    `source`: a file (.jsonl .json .csv .parquet .txt, or with .gz), a folder of them or one that `datasets` saved, or a
    hub id `owner/name`, `owner/name:config`, `owner/name@revision`, or a YAML file of such. `split`, or `#test` after
    the source, picks one of a folder or hub id; without it, the only one or "train". `data_format`: a name of
    `formats.FORMATS` or `formats.MAPPINGS`, or "auto" to recognise it by the first row that can be used.
    Raises DataError on a bad row (with "skip" it is kept in `Rows.bad` instead), on a source that is absent, or without
    a usable row; ConfigError on an unknown format or split, or a format without such records; StorageError on a file
    that cannot be opened.
    """
    if on_bad_row not in ("error", "skip"):
        raise ConfigError(f"--on_bad_row: `{on_bad_row}` is not a choice; expected error or skip")
    rows = Rows[R]([], [], [], {})
    dropped: Counter[str] = Counter()
    for item in _items(source, kind, data_format, split, streaming=False):
        if isinstance(item, Found):
            rows.records.append(item.record)
            rows.places.append(item.where)
        elif isinstance(item, LeftOut):
            dropped[item.reason] += 1
        elif on_bad_row == "error":
            raise DataError(f"{item.where}: {item.reason}; {FIX_OR_SKIP}")
        else:
            rows.bad.append(item)
    rows.dropped.update(dropped)
    _refuse_nothing(rows, source)
    return rows


def stream(
    source: str, kind: type[R], *, data_format: str = "auto", split: str | None = None
) -> Iterator[Found[R] | LeftOut | BadRow]:
    """Give what every row of `source` holds, one by one: records, what a format leaves out, rows that cannot be used.

    Arguments and errors are those of `read`, except that a bad row is given and never raised, and that a data set of
    the hub comes over the network row by row. With `Record` itself as `kind`, a row gives its records of every kind
    that it can be read as, one after the other, and is bad where that is none; a prompt's facts may be missing.
    """
    return _items(source, kind, data_format, split, streaming=True)


def _items(
    source: str, kind: type[R], data_format: str, split: str | None, *, streaming: bool
) -> Iterator[Found[R] | LeftOut | BadRow]:
    for part in _parts(source, data_format, split):
        for item in _records(part, kind, streaming):
            if isinstance(item, Found):
                yield from _drawn(item, part)
            else:
                yield item


def _parts(source: str, data_format: str, split: str | None) -> list[Source]:
    form, bare = formats.named(data_format), source.partition("#")[0]
    if not is_mix(bare):
        return [Source(source, split, form)]
    if form is not None:
        raise ConfigError(f"--data_format: {bare} says itself what its columns mean; leave `{data_format}` out")
    if split is not None or bare != source:
        raise ConfigError(f"{source}: a YAML file has no splits; write `split: ...` beside its `data`")
    return read_mix(source)


def _drawn(item: Found[R], part: Source) -> Iterator[Found[R] | LeftOut]:
    """Give a record as often as the weight of its source says, with the name of its source."""
    copies = part.copies(item.record)
    if copies == 0:
        yield LeftOut(item.where, f"not drawn at weight {part.weight:g}")
    if part.name is not None and item.record.source is None:
        item = Found(item.where, replace(item.record, source=part.name))
    yield from (item for _ in range(copies))


def _records(part: Source, kind: type[R], streaming: bool) -> Iterator[Found[R] | LeftOut | BadRow]:
    """Convert every row; a row that cannot be used gives nothing but its problem."""
    form, raw = part.form, None
    unseen = set(form.optional) if form else set()
    for raw in _raw_rows(part.data, part.split, streaming):
        unseen -= {column for column in unseen if column.is_in(raw.value or {})}
        try:
            value = _decoded(raw)
            as_form = form or formats.recognise(value, raw.where)
            records = list(as_form.records(value, kind, raw.where))
        except (DataError, RecursionError) as error:
            reason = str(error) if isinstance(error, DataError) else "nested too deeply"
            yield BadRow(raw.where, printable(reason.removeprefix(f"{raw.where}: ")), raw.raw or repr(raw.value))
            continue
        form = as_form
        if not records:
            yield LeftOut(raw.where, f"holds no {kind.__name__.lower()}")
        for record in records:
            yield Found(raw.where, record) if isinstance(record, kind) else LeftOut(raw.where, str(record))
    if unseen and form and raw:
        names = ", ".join(sorted(f"`{column.name}?`" for column in unseen))
        raise ConfigError(
            f"{part.data}: no row has {names}, {form.name}; check the name, or leave it out of the mapping"
        )


def _decoded(raw: RawRow) -> dict[str, Any]:
    if raw.value is None:
        raise DataError(f"{raw.where}: {raw.problem}")
    return {name: _without_nulls(value) for name, value in raw.value.items() if value is not None}


def _without_nulls(value: Any) -> Any:
    """Leave out keys that are null: tables have every key in every row, JSON only those that say something."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _refuse_nothing(rows: Rows[R], source: str) -> None:
    if rows.records:
        return
    if rows.bad:
        first = rows.bad[0]
        raise DataError(f"{source}: none of {len(rows.bad)} rows is usable; the first, {first.where}: {first.reason}")
    if rows.dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in rows.dropped.items())
        raise DataError(f"{source}: every row was dropped ({reasons}); pass other data")
    raise DataError(f"{source}: no rows; the file is empty")


def _raw_rows(source: str, split: str | None, streaming: bool) -> Iterator[RawRow]:
    """Find the source. Raises DataError where it is nowhere, StorageError where a folder is closed to us."""
    try:
        if split is None and not Path(source).expanduser().exists():
            source, _, named = source.partition("#")
            split = named or None
        return _found(source, split, streaming)
    except PermissionError as error:
        raise StorageError(f"{source}: cannot be read ({error.strerror}); check that you may read it") from None


def _found(source: str, split: str | None, streaming: bool) -> Iterator[RawRow]:
    path = Path(source).expanduser()
    if path.is_dir():
        if hub.is_saved(path):
            return hub.saved_rows(path, split)
        return _folder_rows(path, split)
    if path.exists():
        if split is not None:
            raise ConfigError(f"{source}: a file has no splits; leave `#{split}` out")
        return files.rows(path)
    if hub.is_id(source) and files.data_suffix(path) is None:
        return hub.rows(source, split, streaming=streaming)
    raise DataError(f"{source}: no such file or folder, and not a hub id (owner/name); check the path")


def _folder_rows(folder: Path, split: str | None) -> Iterator[RawRow]:
    """Read the data files of a folder in the order of their names; train.jsonl, test-00000.parquet belong to splits."""
    by_split: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and files.data_suffix(path):
            by_split.setdefault(hub.split_of(path.name), []).append(path)
    if not by_split:
        raise DataError(f"{folder}: no data files in this folder; expected {', '.join(files.SUFFIXES)} (or with .gz)")
    if "" in by_split and len(by_split) > 1:
        raise ConfigError(f"{folder}: {by_split[''][0].name} names no split but other files do; pass one file")
    chosen = hub.choose_split(list(by_split), split, str(folder))
    return (row for path in by_split[chosen] for row in files.rows(path))
