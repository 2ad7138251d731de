"""`rlhf data inspect SOURCE`: read a data set once, row by row, and say what it holds and what looks wrong.

Lengths are tokens of `--tokenizer`, encoded as the stages encode them, else characters. Left out: changing anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.storage import storage_errors, write_atomic
from rlhf_pipeline.config import command_settings
from rlhf_pipeline.data.findings import findings
from rlhf_pipeline.data.portrait import portrait
from rlhf_pipeline.data.sources import BadRow, Found, stream
from rlhf_pipeline.data.tally import Size, Tally
from rlhf_pipeline.errors import ConfigError, DataError, ModelError
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record, completion_text, completions_of

KINDS: dict[str, type[Record]] = {
    "rankings": Ranking,
    "demonstrations": Demonstration,
    "documents": Document,
    "prompts": Prompt,
}
"""In the order in which "auto" tries them: what says most first."""
COLUMNS = {"rankings": {"chosen", "rejected", "completions", "ranks", "scores"}, "demonstrations": {"completion"}}
"""What nobody calls the facts of a prompt."""
TRIED = 100
"""Rows that "auto" looks at."""


@dataclass(frozen=True)
class InspectSettings:
    """What `rlhf data inspect` takes."""

    data: str = field(default="", metadata={"help": "file, folder, hub id, or YAML file of sources; or first word"})
    kind: Literal["auto", "rankings", "demonstrations", "documents", "prompts"] = field(
        default="auto", metadata={"help": "what to read the rows as"}
    )
    data_format: str = field(default="auto", metadata={"help": "format of the data; auto finds out"})
    tokenizer: str = field(default="", metadata={"help": "folder, hub id, artifact or role: lengths in its tokens"})
    max_length: int | None = field(default=None, metadata={"help": "count the rows that are longer than this"})
    examples: int = field(default=3, metadata={"help": "records to show"})
    limit: int | None = field(default=None, metadata={"help": "read so many rows only"})
    json: str = field(default="", metadata={"help": "also write all numbers into this file"})
    run: str = field(default="default", metadata={"help": "the run whose role --tokenizer may name"})
    artifacts: str = field(default="artifacts", metadata={"help": "folder of the artifact store"})

    def __post_init__(self) -> None:
        """Refuse what cannot be looked at."""
        if not self.data:
            raise ConfigError("rlhf data inspect: which data? e.g. `rlhf data inspect data/rankings.jsonl`")
        for name in ("max_length", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"`{name}` must be at least 1, not {value}")
        if self.examples < 0:
            raise ConfigError(f"`examples` must be 0 or more, not {self.examples}")


def main(argv: Sequence[str]) -> int:
    """Run `rlhf data inspect`; return the exit status."""
    summary = (__doc__ or "").split("\n\n")[0]
    settings = command_settings(argv, "rlhf data inspect SOURCE", summary, InspectSettings, first="data")
    if settings is not None:
        run(settings)
    return 0


def run(settings: InspectSettings) -> dict[str, Any]:
    """Read, count and print; return every number. Raises DataError where there is no usable row."""
    kind, doubts = guess_kind(settings) if settings.kind == "auto" else (settings.kind, [])
    tally = count(settings, kind)
    tally.doubts += doubts
    if not tally.counts["records"]:
        seen = f"the first, {tally.bad[0].where}: {tally.bad[0].reason}" if tally.bad else "no rows"
        raise DataError(f"{settings.data}: nothing to read as {kind}; {seen}")
    for line in portrait(tally, kind):
        print(line)
    numbers = {"data": settings.data, "kind": kind, **tally.to_dict(), "findings": findings(tally)}
    if settings.json:
        with storage_errors(f"{settings.json}: cannot write"):
            write_atomic(Path(settings.json), json.dumps(numbers, indent=1) + "\n")
    return numbers


def guess_kind(settings: InspectSettings) -> tuple[str, list[str]]:
    """Give the first of `KINDS` that one of the first rows can be read as, and why not as what they look made for.

    Raises DataError where there is none.
    """
    why, refused, gives_some = "no rows", dict[str, str](), False
    for name, kind in KINDS.items():
        try:
            items = list(islice(stream(settings.data, kind, data_format=settings.data_format), TRIED))
        except ConfigError as error:
            if "gives" not in str(error):
                raise
            gives_some = True
            continue
        found = next((item.record for item in items if isinstance(item, Found)), None)
        if found is not None:
            meant = [one for one in refused if gives_some or _looks_like(one, found)]
            return name, [f"the rows look like {one} and cannot be read so: {refused[one]}" for one in meant]
        bad = next((item for item in items if isinstance(item, BadRow)), None)
        if bad is not None:
            why = refused[name] = f"{bad.where}: {bad.reason}"
    raise DataError(f"{settings.data}: none of its first {TRIED} rows can be read; {why}")


def _looks_like(name: str, found: Record) -> bool:
    """Say whether a row that could only be read as a prompt has columns of something else."""
    return isinstance(found, Prompt) and not COLUMNS.get(name, set()).isdisjoint(found.facts)


def count(settings: InspectSettings, kind: str) -> Tally:
    """Stream the rows through a `Tally`."""
    tokenizer = _tokenizer(settings) if settings.tokenizer else None
    measure = _characters if tokenizer is None else _tokens(tokenizer)
    tally = Tally("characters" if tokenizer is None else "tokens", settings.examples, settings.max_length)
    items = stream(settings.data, KINDS[kind], data_format=settings.data_format)
    for item in tqdm(islice(items, settings.limit), desc="rows", unit="row", delay=2, leave=False, disable=None):
        if not isinstance(item, Found):
            tally.add_other(item)
            continue
        try:
            tally.add(item, measure(item.record))
        except ModelError as error:
            tally.add_other(BadRow(item.where, str(error), ""))
            continue
        if tokenizer is not None:
            tally.counts["eos_text"] += _holds(item.record, str(tokenizer.eos_token))
    return tally


def _tokenizer(settings: InspectSettings) -> Any:
    from rlhf_pipeline.bases import Checkpoint, find_checkpoint
    from rlhf_pipeline.models import load_tokenizer
    from rlhf_pipeline.tokenization import make_fit

    named = settings.tokenizer
    is_folder = (Path(named) / "tokenizer_config.json").is_file()
    found = Checkpoint(named, named) if is_folder else find_checkpoint(Store(settings.artifacts), named, settings.run)
    tokenizer = load_tokenizer(found)
    make_fit(tokenizer)
    return tokenizer


def _characters(record: Any) -> Size:
    if isinstance(record, Document):
        return Size(len(record.text), [])
    return Size(len(completion_text(record.prompt)), [len(completion_text(text)) for text in completions_of(record)])


def _tokens(tokenizer: Any) -> Callable[[Any], Size]:
    """Count as the stages do: chat template, special tokens, and an end for what is finished."""
    from rlhf_pipeline.encoding import encode_completion, encode_prompt

    def measure(record: Any) -> Size:
        if isinstance(record, Document):
            return Size(len(tokenizer(record.text)["input_ids"]), [])
        finished = record.is_finished if isinstance(record, Ranking) else lambda number: True
        completions = [
            len(encode_completion(tokenizer, record.prompt, text, finished(number)))
            for number, text in enumerate(completions_of(record))
        ]
        return Size(len(encode_prompt(tokenizer, record.prompt)), completions)

    return measure


def _holds(record: Any, text: str) -> int:
    return sum(text in completion_text(completion) for completion in completions_of(record))
