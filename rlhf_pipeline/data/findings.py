"""What is likely wrong with a data set, each with the number that says so and what to do. Thresholds are ours.

Left out: judgements about content.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlhf_pipeline.data.sketches import share
from rlhf_pipeline.data.tally import Tally

MANY, SOME = 0.2, 0.01
"""Shares above which something is a habit of the data, or more than an accident."""
DOMINATES = 0.5
LONGER = 0.65
"""Chance prefers the longer completion in half of the pairs."""
ENOUGH = 20
"""Fewer than this say nothing about shares."""
OUTLIER = 10
"""A longest row of so many times the 99th percentile stands out."""


def findings(tally: Tally) -> list[str]:
    """Name what looks wrong."""
    return [*tally.doubts, *_rows(tally), *_lengths(tally), *_texts(tally), *_rankings(tally), *_people(tally)]


def _rows(tally: Tally) -> Iterator[str]:
    bad, records = tally.counts["bad"], tally.counts["records"]
    if bad:
        yield f"{_of(bad, bad + records)} rows cannot be used; fix them, or pass `--on_bad_row skip`"
    for name, same in tally.same.items():
        if name == "prompts" and tally.of_completions:
            continue  # several people, or several pairs, rank the completions of one prompt
        found = same.to_dict()
        if share(found["repeated"], found["count"]) > (SOME if name == "records" else MANY):
            yield (
                f"{_of(found['repeated'], found['count'])} {name} repeat an earlier one, the most frequent "
                f"{found['largest']} times; `rlhf data curate` removes duplicates"
            )


def _lengths(tally: Tally) -> Iterator[str]:
    rows, completions = tally.lengths["row"], tally.lengths["completion"]
    if rows.over:
        yield f"{_of(rows.over, rows.count)} rows have more than {rows.limit} {tally.unit}; see `--on_long_row`"
    usual = rows.percentile(0.99)
    if rows.count >= ENOUGH and rows.longest > OUTLIER * usual:
        yield f"the longest row has {rows.longest} {tally.unit}, the 99th percentile {usual}; look at it"
    at_the_end = completions.at_longest
    if completions.count >= ENOUGH and completions.longest > 1 and at_the_end > max(2, SOME * completions.count):
        yield (
            f"{_of(at_the_end, completions.count)} completions have exactly the greatest length, {completions.longest} "
            f"{tally.unit}: were they cut off there? then say so (`finished`), or the end is learnt where there is none"
        )


def _texts(tally: Tally) -> Iterator[str]:
    counts, of = tally.counts, tally.counts["completions"]
    if of >= ENOUGH and share(counts["without_end"], of) > MANY:
        yield f"{_of(counts['without_end'], of)} completions end without a closing mark: cut off? see `finished`"
    if of >= ENOUGH and share(counts["glued"], of) > MANY:
        yield (
            f"{_of(counts['glued'], of)} plain completions begin without a blank right after the prompt, and are put "
            "together so; begin them with one, or write messages"
        )
    if counts["plain"] and tally.turns:
        messages = sum(tally.turns.values())
        yield f"{counts['plain']} prompts are plain text and {messages} are messages: only these get the chat template"
    if counts["eos_text"]:
        yield f"{_of(counts['eos_text'], of)} completions hold the end-of-sequence token as text; remove it"


def _rankings(tally: Tally) -> Iterator[str]:
    counts, rankings, pairs = tally.counts, sum(tally.of_completions.values()), tally.counts["pairs"]
    if counts["all_tied"]:
        yield f"{_of(counts['all_tied'], rankings)} rankings tie all their completions and teach nothing"
    if counts["same_text"]:
        yield f"{_of(counts['same_text'], pairs)} pairs compare a completion with itself; they are left out"
    longer = share(counts["longer_preferred"], counts["unequal_length"])
    if counts["unequal_length"] >= ENOUGH and longer > LONGER:
        yield f"the longer of two completions wins {longer:.0%} of the pairs: a reward model may learn just that"


def _people(tally: Tally) -> Iterator[str]:
    for name, top in tally.names.items():
        if name == "source" or top.total < ENOUGH:
            continue
        who, count = top.counts.most_common(1)[0]
        if share(count, top.total) > DOMINATES and len(top.counts) > 1:
            yield f"{name} {who} gave {_of(count, top.total)} records"
        missing = tally.counts["records"] - top.total
        if missing:
            yield f"{_of(missing, tally.counts['records'])} records name no {name}, the others do"


def _of(part: int, of: int) -> str:
    return f"{part} of {of} ({share(part, of):.1%})"
