"""Records made ready for a trainer: split by prompt, encoded, fitted to the model's length, and counted.

Every row that was read is trained on, held out, or set aside with its reason; `Counts` add up to what was read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tqdm import tqdm

from rlhf_pipeline.data.pairs import Ties, compared_pairs
from rlhf_pipeline.data.sources import BadRow, OnBadRow, Rows
from rlhf_pipeline.data.splits import by_prompt
from rlhf_pipeline.encoding import LongRow, OnLongRow, encode_completion, encode_prompt, fit
from rlhf_pipeline.errors import DataError, ModelError
from rlhf_pipeline.jobs import Job, say
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

R = TypeVar("R", Demonstration, Ranking, Prompt, Document)
Example = dict[str, Any]


@dataclass(frozen=True)
class Prepared(Generic[R]):
    """What a trainer gets, what was held out of it, what did not fit, and places of rankings without a comparison."""

    train: list[Example]
    held_out: list[Example]
    held_out_records: list[R]
    long: list[LongRow]
    without_pairs: list[str]


def prepare(
    rows: Rows[R],
    encode: Callable[[R, str], list[Example] | LongRow],
    *,
    eval_fraction: float,
    seed: int,
) -> Prepared[R]:
    """Split `rows` by prompt and encode each record, which may give several examples or a row that is too long.

    `encode` takes a record and its place. Raises `DataError` where nothing is left to train on or to hold out, and
    `ModelError` naming the place of a row that the chat template refuses.
    """
    places = {id(record): rows.where(index) for index, record in enumerate(rows.records)}
    try:
        train, held_out = by_prompt(rows.records, eval_fraction, seed)
    except DataError as error:
        raise DataError(f"{rows.where(0)}: {error}; add rows, or pass `--eval_fraction 0`") from error
    prepared: Prepared[R] = Prepared([], [], [], [], [])
    for records, examples in ((train, prepared.train), (held_out, prepared.held_out)):
        for record in tqdm(records, desc="encoding", unit="row", delay=2, leave=False, disable=None):
            encoded = _encoded(encode, record, places[id(record)])
            if isinstance(encoded, LongRow):
                prepared.long.append(encoded)
                continue
            if not encoded:
                prepared.without_pairs.append(places[id(record)])
                continue
            examples.extend(encoded)
            if examples is prepared.held_out:
                prepared.held_out_records.append(record)
    _need_rows(prepared, rows, eval_fraction)
    return prepared


def _encoded(encode: Callable[[R, str], list[Example] | LongRow], record: R, where: str) -> list[Example] | LongRow:
    try:
        return encode(record, where)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error


def _need_rows(prepared: Prepared[R], rows: Rows[R], eval_fraction: float) -> None:
    start, long = f"{rows.where(0)} and what follows", len(prepared.long)
    if not prepared.train and long:
        raise DataError(
            f"{start}: no row is left to train on ({long} too long); raise the length limit, or pass "
            "`--on_long_row truncate`"
        )
    if not prepared.train:
        raise DataError(f"{start}: no row prefers one completion to another; pass rankings whose ranks do not all tie")
    if eval_fraction and not prepared.held_out:
        why = f"{long} rows too long, {len(prepared.without_pairs)} with nothing to compare, on both sides"
        raise DataError(
            f"{start}: no row is left to hold out ({why}); add rows, raise `--eval_fraction`, or pass "
            "`--eval_fraction 0`"
        )


def report(
    job: Job,
    rows: Rows[R],
    prepared: Prepared[R],
    pairs: Mapping[str, int] | None = None,
    pairs_left_out: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Set the unused rows aside in the job's folder, say what became of all, and return the counts.

    Of rankings, also: `pairs` that are compared, by the set they are in, and those that are not, by the reason.
    """
    job.set_aside("bad_rows", [bad.to_dict() for bad in rows.bad])
    job.set_aside("long_rows", [asdict(row) for row in prepared.long])
    job.set_aside("rows_without_pairs", [{"where": where} for where in prepared.without_pairs])
    counts = {
        "rows_used": len(rows.records) - len(prepared.long) - len(prepared.without_pairs),
        "rows_bad": len(rows.bad),
        "rows_long": len(prepared.long),
        "rows_without_pairs": len(prepared.without_pairs),
        "train_examples": len(prepared.train),
        "held_out_examples": len(prepared.held_out),
    }
    counts |= {f"rows_dropped_{_slug(reason)}": count for reason, count in rows.dropped.items()}
    counts |= {f"pairs_{_slug(name)}": count for name, count in (pairs or {}).items()}
    counts |= {f"pairs_left_out_{_slug(reason)}": count for reason, count in (pairs_left_out or {}).items()}
    say(f"{job.stage}: " + "  ".join(f"{name} {count}" for name, count in counts.items() if count))
    return counts


def room(config: PretrainedConfig, max_length: int | None) -> int:
    """Tokens that fit in one row: the smaller of `max_length` and the positions of the model."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (max_length, positions) if limit]
    return min(limits) if limits else 1 << 30


def demonstration_encoder(
    tokenizer: PreTrainedTokenizerBase, limit: int, on_long_row: OnLongRow, *, completion_only: bool = True
) -> Callable[[Demonstration, str], list[Example] | LongRow]:
    """Encode a demonstration into `input_ids` and `labels` (-100 where a token is not learnt)."""

    def encode(record: Demonstration, where: str) -> list[Example] | LongRow:
        completion = encode_completion(tokenizer, record.prompt, record.completion)
        fitted = fit(tokenizer, record.prompt, len(completion), limit, where, on_long_row)
        if isinstance(fitted, LongRow):
            return fitted
        prompt = encode_prompt(tokenizer, fitted)
        learnt = [-100] * len(prompt) if completion_only else prompt
        return [{"input_ids": prompt + completion, "labels": learnt + completion}]

    return encode


def ranking_encoder(
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    on_long_row: OnLongRow,
    *,
    ties: Ties = "skip",
    use_margins: bool = False,
    left_out: Counter[str] | None = None,
) -> Callable[[Ranking, str], list[Example] | LongRow]:
    """Encode a ranking of K into one group (`ranking/collator.py`), or into nothing where no pair is left to compare.

    Completions end with EOS only where they finished, and equal ones share a row. Pairs of different text whose rows
    are equal, as where the chat template trims, compare nothing: they are counted in `left_out` as "same tokens".
    With `use_margins` a margin is the difference of the ranking's scores. `length` is the longest row.
    """

    def encode(record: Ranking, where: str) -> list[Example] | LongRow:
        completions = [
            encode_completion(tokenizer, record.prompt, completion, record.is_finished(number))
            for number, completion in enumerate(record.completions)
        ]
        fitted = fit(tokenizer, record.prompt, max(map(len, completions)), limit, where, on_long_row)
        if isinstance(fitted, LongRow):
            return fitted
        prompt = encode_prompt(tokenizer, fitted)
        asked = compared_pairs(record, ties)
        pairs = [(better, worse) for better, worse in asked if completions[better] != completions[worse]]
        if left_out is not None:
            left_out["same tokens"] += len(asked) - len(pairs)
        rows = list(dict.fromkeys(tuple(prompt + completions[number]) for pair in pairs for number in pair))
        row = {number: rows.index(tuple(prompt + completions[number])) for pair in pairs for number in pair}
        group: Example = {
            "input_ids": [list(ids) for ids in rows],
            "better": [row[better] for better, _ in pairs],
            "worse": [row[worse] for _, worse in pairs],
            "margin": margins(record, pairs, where) if use_margins else [0.0] * len(pairs),
            "tied": [record.ranks[better] == record.ranks[worse] for better, worse in pairs],
            "length": max(map(len, rows), default=0),
        }
        return [group] if pairs else []

    return encode


def margins(record: Ranking, pairs: Sequence[tuple[int, int]], where: str) -> list[float]:
    """By how much each better completion's score exceeds the worse one's; a tie has no margin.

    Raises `DataError` where there are no scores, or where they put a worse completion first: a margin below zero would
    ask the better one to trail.
    """
    scores, ranks = record.scores, record.ranks
    if scores is None:
        raise DataError(f"{where}: no `scores`, which margins come from; add them, or leave `use_margins` out")
    for a, b in pairs:
        if ranks[a] != ranks[b] and scores[a] < scores[b]:
            raise DataError(
                f"{where}: completion {a} is ranked above completion {b}, but `scores` say {scores[a]:g} and "
                f"{scores[b]:g}; correct the row, or leave `use_margins` out"
            )
    return [float(scores[a] - scores[b]) if ranks[a] != ranks[b] else 0.0 for a, b in pairs]


def with_margins(rows: Rows[Ranking], ties: Ties, on_bad_row: OnBadRow) -> Rows[Ranking]:
    """Move the rankings that give no margins to the bad rows; raises the first one's `DataError` under "error"."""
    kept: Rows[Ranking] = Rows([], [], list(rows.bad), rows.dropped)
    for record, where in zip(rows.records, rows.places, strict=True):
        try:
            margins(record, compared_pairs(record, ties), where)
        except DataError as error:
            if on_bad_row == "error":
                raise
            kept.bad.append(BadRow(where, str(error).removeprefix(f"{where}: "), json.dumps(record.to_dict())))
            continue
        kept.records.append(record)
        kept.places.append(where)
    if not kept.records:
        raise DataError(f"{rows.where(0)} and what follows: no row gives margins; leave `use_margins` out")
    return kept


def document_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[Document, str], list[Example] | LongRow]:
    """Encode a document and end it with EOS; packing cuts what is long."""

    def encode(record: Document, where: str) -> list[Example] | LongRow:
        return [{"input_ids": [*tokenizer(record.text)["input_ids"], tokenizer.eos_token_id]}]

    return encode


def _slug(reason: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in reason.lower())
