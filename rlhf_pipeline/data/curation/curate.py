"""Curate a source in two passes and bounded memory: what a row alone decides, then what the others decide.

The first pass judges each row, redacts it and writes it to a scratch file, and keeps some 60 bytes of hashes (and with
near-duplicates 130 more) in memory; the second takes the decisions that need all rows, and writes what stays. The rows
that stay do not depend on the order of the source; their order does.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from rlhf_pipeline.artifacts import storage_errors
from rlhf_pipeline.data.curation.contamination import EvaluationText
from rlhf_pipeline.data.curation.decisions import Decisions
from rlhf_pipeline.data.curation.lengths import LengthLimits, token_counter
from rlhf_pipeline.data.curation.near_duplicates import NearDuplicates
from rlhf_pipeline.data.curation.personal_data import PersonalData
from rlhf_pipeline.data.curation.report import Report
from rlhf_pipeline.data.curation.rows import Keys, RowFile
from rlhf_pipeline.data.curation.settings import CurateSettings
from rlhf_pipeline.data.curation.sides import is_held_out
from rlhf_pipeline.data.curation.text import prompt_text, rewritten, rewritten_value
from rlhf_pipeline.data.curation.truncation import why_truncated
from rlhf_pipeline.data.formats import AmbiguousFormat
from rlhf_pipeline.data.sources import BadRow, Found, LeftOut, stream
from rlhf_pipeline.errors import ConfigError, DataError
from rlhf_pipeline.records import Prompt, Record

TRAIN, EVAL, REPORT, DROPPED = "train.jsonl", "eval.jsonl", "report/curation.json", "report/dropped.jsonl"
AS_THEY_WERE = "personal data: dropped.jsonl holds rows as they were, personal data and all; delete it with the source"


def curate(settings: CurateSettings) -> Report:
    """Write train.jsonl (and eval.jsonl) of `settings.output`, and in its folder `report` what became of every row.

    Files appear whole, once everything is decided. Raises DataError where nothing is left, or a side is empty, and
    ConfigError where the source is one of the files to be written.
    """
    output = Path(settings.output)
    _refuse_own_output(settings.source, output)
    with storage_errors(f"{output}: cannot write"):
        (output / "report").mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".curating-", dir=output) as scratch, ExitStack() as stack:
            folder = Path(scratch)
            aside = stack.enter_context((folder / "dropped.jsonl").open("w", encoding="utf-8"))
            rows = stack.enter_context(closing(RowFile(folder / "rows")))
            report = Report(aside)
            first = _FirstPass(settings, report, rows, folder)
            if first.near is not None:
                stack.enter_context(closing(first.near))
            first.run()
            decided = Decisions(settings, report, rows, first.keys, first.near, first.held).take()
            _write(settings, report, rows, decided, folder)
            aside.close()
            _publish(settings, report, folder, output)
    return report


class _FirstPass:
    """Judge every row alone; what passes goes to `rows`, its hashes to `keys`, its prompt to `near`."""

    def __init__(self, settings: CurateSettings, report: Report, rows: RowFile, folder: Path) -> None:
        self.settings, self.report, self.rows = settings, report, rows
        self.keys, self.held = Keys(settings.prefix_characters), bytearray()
        asked = [settings.near_duplicates, settings.apart if settings.split_by else 0]
        self.near = NearDuplicates(min(filter(None, asked)), folder) if any(asked) else None
        self._personal = PersonalData(settings.phone_regions) if settings.personal_data != "keep" else None
        self._steps = dict(_steps(settings))
        for name in ("read", *self._steps, *(["personal data"] if self._personal else [])):
            report.begin(name)

    def run(self) -> None:
        """Read the source once."""
        settings = self.settings
        found = stream(settings.source, settings.record, data_format=settings.data_format)
        for item in tqdm(found, desc="reading", unit="row", delay=2, leave=False, disable=None):
            self.report.steps["read"].seen += 1
            if isinstance(item, Found):
                self._judge(item.where, item.record)
            else:
                self._set_aside(item)
        if not self.report.steps["read"].seen:
            raise DataError(f"{settings.source}: no rows; the file is empty")

    def _set_aside(self, item: BadRow | LeftOut) -> None:
        unreadable = isinstance(item, BadRow)
        reason = f"unusable: {item.reason}" if unreadable else f"left out by the format ({item.reason})"
        self._drop("read", item.where, reason, self._clean_raw(item.raw) if isinstance(item, BadRow) else None)

    def _judge(self, where: str, record: Record) -> None:
        for name, why_not in self._steps.items():
            self.report.steps[name].seen += 1
            if reason := why_not(record):
                self._drop(name, where, reason, rewritten(record, self._clean).to_dict())
                return
        clean = self._cleaned(where, record)
        if clean is not None:
            self._keep(where, clean)

    def _cleaned(self, where: str, record: Record) -> Record | None:
        """Give the record without personal data, or None where that drops it."""
        personal = self._personal
        if personal is None:
            return record
        step, counts = self.report.steps["personal data"], Counter[str]()
        step.seen += 1
        clean = rewritten(record, lambda text: personal.redacted(text, counts))
        if not counts:
            return record
        if self.settings.personal_data == "drop":
            self._drop("personal data", where, f"holds {', '.join(sorted(counts))}", record.to_dict())
            return None
        try:
            clean.check(where)
        except DataError as error:
            self._drop("personal data", where, f"unusable once redacted: {error}", clean.to_dict())
            return None
        step.changed.update(counts)
        return clean

    def _drop(self, step: str, where: str, reason: str, row: Any) -> None:
        """Report a row that goes: its reason may quote it, so what is redacted in the one is redacted in the other."""
        self.report.drop(step, where, self._clean(reason), row)
        if self.settings.personal_data == "drop" and AS_THEY_WERE not in self.report.notes:
            self.report.notes.append(AS_THEY_WERE)

    def _clean(self, text: str) -> str:
        """Redact a text that is written aside, where rows are redacted."""
        if self._personal is None or self.settings.personal_data != "redact":
            return text
        return self._personal.redacted(text, Counter())

    def _clean_raw(self, raw: str) -> str:
        """Redact the text of a row that cannot be used; where it is JSON, in its strings, whatever their escapes."""
        if self.settings.personal_data != "redact":
            return raw
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            return self._clean(raw)
        clean = rewritten_value(value, self._clean)
        return self._clean(raw if clean == value else json.dumps(clean))

    def _keep(self, where: str, record: Record) -> None:
        settings = self.settings
        if settings.split_by:
            held = is_held_out(record, where, settings.split_by, settings.eval_fraction, settings.seed)
            self.held.append(held)
        self.keys.add(record)
        if self.near is not None:
            self.near.add(prompt_text(record))
        row = record.to_dict()
        row.setdefault("id", Path(where).name)
        self.rows.add(where, json.dumps(row, ensure_ascii=False))


def _steps(settings: CurateSettings) -> Iterator[tuple[str, Callable[[Record], str | None]]]:
    """Give the steps that were asked for and that a row alone decides."""
    limits = LengthLimits(
        settings.max_prompt_characters,
        settings.min_answer_characters,
        settings.max_answer_characters,
        settings.max_tokens,
        token_counter(settings.tokenizer) if settings.tokenizer else None,
    )
    if limits != LengthLimits():
        yield "length", limits.why_not
    if settings.drop_truncated:
        yield "truncated", why_truncated
    if settings.evaluation:
        yield "contamination", _evaluation(settings).why_contaminated


def _evaluation(settings: CurateSettings) -> EvaluationText:
    index = EvaluationText(settings.ngram, settings.ngram_share)
    for source in settings.evaluation:
        try:
            _take_in(index, source)
        except AmbiguousFormat as error:
            raise error.for_source(source) from None
    return index


def _take_in(index: EvaluationText, source: str) -> None:
    for item in stream(source, Prompt):
        if isinstance(item, BadRow):
            raise DataError(f"{item.where}: {item.reason}; fix the row: an evaluation set is read as a whole")
        if isinstance(item, Found):
            index.add(item.record, item.where)


def _write(settings: CurateSettings, report: Report, rows: RowFile, decided: bytes, folder: Path) -> None:
    """Write the rows that stay; `decided` says for each 0 dropped, 1 train, 2 eval."""
    names = [TRAIN, EVAL] if settings.split_by else [TRAIN]
    report.written.update(dict.fromkeys(names, 0))
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("w", encoding="utf-8")) for name in names]
        for side, (_, row) in zip(decided, rows, strict=True):
            if side:
                files[side - 1].write(row + "\n")
                report.written[names[side - 1]] += 1


def _publish(settings: CurateSettings, report: Report, folder: Path, output: Path) -> None:
    """Move the files into place, and raise DataError where one of them has no row: then the report alone is there."""
    whole = json.dumps(report.to_dict(_shown(settings)), indent=1, ensure_ascii=False)
    (folder / "curation.json").write_text(whole + "\n", encoding="utf-8")
    os.replace(folder / "curation.json", output / REPORT)
    os.replace(folder / "dropped.jsonl", output / DROPPED)
    for name, count in report.written.items():
        if not count:
            raise DataError(f"{output / name}: no row is left for it; {output / REPORT} says which step dropped what")
    for name in (TRAIN, EVAL):
        if name in report.written:
            os.replace(folder / name, output / name)
        else:
            (output / name).unlink(missing_ok=True)


def _shown(settings: CurateSettings) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(settings).items() if name != "output"}


def _refuse_own_output(source: str, output: Path) -> None:
    read = Path(source.partition("#")[0]).expanduser().resolve()
    if read in (output.resolve(), *((output / name).resolve() for name in (TRAIN, EVAL))):
        raise ConfigError(f"`output` {output} would replace what is read from {source}; name another folder")
