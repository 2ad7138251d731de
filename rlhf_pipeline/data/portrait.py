"""A tally as lines for the terminal: numbers, bars of text, examples, and what looks wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_pipeline.data.findings import findings
from rlhf_pipeline.data.sketches import Top, bars
from rlhf_pipeline.data.tally import Tally
from rlhf_pipeline.records import Document, Ranking, Text, completion_text

WIDTH = 40
"""Characters of the longest bar."""
SNIPPET = 100
_NAMES = {"prompt": "prompts", "completion": "completions", "row": "rows"}


def portrait(tally: Tally, kind: str) -> Iterator[str]:
    """Give the lines; `kind` is what the rows were read as, in the plural."""
    yield from _counts(tally, kind)
    yield from _lengths(tally, kind)
    yield from _shape(tally)
    yield from _people(tally)
    yield from _same(tally)
    yield from _examples(tally)
    wrong = findings(tally)
    yield ""
    yield "what looks wrong" if wrong else "nothing looks wrong"
    yield from (f"  - {line}" for line in wrong)


def _counts(tally: Tally, kind: str) -> Iterator[str]:
    yield f"{tally.counts['records']} {kind}"
    for reason, count in tally.left_out.most_common():
        yield f"{count} left out: {reason}"
    if tally.counts["bad"]:
        yield f"{tally.counts['bad']} bad rows, the first:"
        yield from (f"  {bad.where}: {bad.reason}" for bad in tally.bad)


def _lengths(tally: Tally, kind: str) -> Iterator[str]:
    if not tally.counts["records"]:
        return
    yield ""
    yield f"{'lengths in ' + tally.unit:<22}" + "".join(
        f"{name:>8}" for name in ("mean", "1 %", "10 %", "50 %", "90 %", "99 %", "max")
    )
    has_completions = tally.lengths["completion"].count > 0
    for name in ("prompt", "completion", "row") if has_completions else ("row",):
        label = _NAMES[name] if has_completions else kind
        yield f"  {label:<20}" + "".join(f"{value:>8.0f}" for value in list(tally.lengths[name].to_dict().values())[1:])
    yield from _bars(dict(tally.lengths["row"].counts), _NAMES["row"] if has_completions else kind)


def _bars(counts: dict[int, int], of: str) -> Iterator[str]:
    grouped = bars(counts)
    most = max(count for _, count in grouped)
    for label, count in grouped:
        bar = "█" * round(WIDTH * count / most) or ("▏" if count else "")
        yield f"  {label:>15}  {bar} {count}"
    yield f"  {'':>15}  {of}"


def _shape(tally: Tally) -> Iterator[str]:
    if tally.of_completions:
        counts = tally.counts
        yield ""
        yield f"completions of a prompt (K); {counts['pairs']} pairs, {counts['ties']} of them ties"
        yield from _bars(dict(tally.of_completions), "rankings")
    if tally.turns:
        plain = f"; {tally.counts['plain']} prompts are plain text" if tally.counts["plain"] else ""
        yield ""
        yield f"turns of the user in a prompt{plain}"
        yield from _bars(dict(tally.turns), f"prompts, {tally.counts['with_system']} with a system message")


def _people(tally: Tally) -> Iterator[str]:
    if any(top.total for top in tally.names.values()):
        yield ""
    for name, top in tally.names.items():
        if top.total:
            yield f"{_how_many(top)} {name}s: " + ", ".join(
                f"{who} {count}" for who, count in top.counts.most_common(5)
            )


def _how_many(top: Top) -> str:
    return f"more than {top.size}" if top.error else str(len(top.counts))


def _same(tally: Tally) -> Iterator[str]:
    yield ""
    for name, same in tally.same.items():
        if same.hashes:
            found = same.to_dict()
            yield f"{found['distinct']} different {name}; {found['repeated']} repeat an earlier one"


def _examples(tally: Tally) -> Iterator[str]:
    for item in tally.examples.kept:
        yield ""
        yield f"example {item.where}"
        yield from (f"  {label:<12}{_snippet(text)}" for label, text in _parts(item.record))


def _parts(record: Any) -> Iterator[tuple[str, str]]:
    if isinstance(record, Document):
        yield "text", record.text
        return
    yield "prompt", _flat(record.prompt)
    if isinstance(record, Ranking):
        for rank, completion in sorted(zip(record.ranks, map(_flat, record.completions), strict=True)):
            yield f"rank {rank}", completion
    elif hasattr(record, "completion"):
        yield "completion", completion_text(record.completion)
    else:
        yield from ((name, str(value)) for name, value in record.facts.items())


def _flat(text: Text) -> str:
    return text if isinstance(text, str) else " | ".join(f"{m['role']}: {m['content']}" for m in text)


def _snippet(text: str) -> str:
    """One line of at most SNIPPET characters; from a longer text its beginning and its end."""
    line = " ".join(text[: 4 * SNIPPET].split()) if len(text) > 4 * SNIPPET else " ".join(text.split())
    end = " ".join(text[-SNIPPET:].split())
    half = SNIPPET // 2
    return line if len(line) <= SNIPPET and len(text) <= 4 * SNIPPET else f"{line[:half]} ... {end[-half:]}"
