"""Rows of every format, and two hundred ways to spoil each; a seed decides which, so that every run sees the same."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking, Record

DATA = Path(__file__).parents[2] / "data"
VARIANTS = 200
ABSENT = "(absent)"
WRONG_TEXT = (ABSENT, None, "", " \t\n", True, [], {}, [None], [5], {"a": "b"}, "a\ud800b", ["text", "text"])
NUMBERS = (5, -0.5, float("nan"), float("inf"))
WRONG_LIST = (ABSENT, None, "", "text", 5, True, {}, [None], [[]], [5, 5], float("nan"), {"0": "a"})
WRONG_NUMBER = (ABSENT, None, "", "best", True, [], [0], {}, float("nan"), float("-inf"), "NaN")
STRANGE = (
    b'"',
    b"'",
    b",",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xe2\x82",
    b"\xef\xbb\xbf",
    b"{",
    b"]",
    b"\\",
    b"\n\n",
    b"9" * 5000,
)
"""Bytes that mean something to a reader, or cannot be text."""
ANYTHING = (*WRONG_TEXT, *NUMBERS, "text", 10**400, "x" * 100_000, {"role": "tool", "content": [{"type": "image"}]})


@dataclass(frozen=True, eq=False)
class Case:
    """A format: a row of it, read as `kind`; where `texts`, `lists` and `numbers` are spoilt it cannot be used.

    `filled` are texts that may be numbers, as templates write them out.
    """

    name: str
    row: dict[str, Any]
    kind: type[Record]
    data_format: str
    texts: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """A spoilt line and what was done to it; `usable` where it must be (True), must not be (False), or may be."""

    what: str
    line: bytes
    usable: bool | None = None


def case(sample: str, kind: type[Record], data_format: str = "trl", **spoilt: tuple[str, ...]) -> Case:
    """Take the first row of a sample."""
    text = (DATA / sample).read_text(encoding="utf-8")
    row = json.loads(text)[0] if sample.endswith(".json") else json.loads(text.splitlines()[0])
    return Case(f"{sample}-{kind.__name__}-{data_format}", row, kind, data_format, **spoilt)


def inline(row: dict[str, Any], kind: type[Record], data_format: str = "trl", **spoilt: tuple[str, ...]) -> Case:
    """Take a row that no sample has."""
    return Case(f"{'-'.join(row)}-{kind.__name__}-{data_format}", row, kind, data_format, **spoilt)


MESSAGES = {"texts": ("messages.0.role", "messages.0.content", "messages.1.content"), "lists": ("messages",)}
ROOT = ("prompt.role", "prompt.text")
SUMMARIES = {"texts": ("info.post", "info.subreddit", "summaries.0.text", "summaries.1.text"), "lists": ("summaries",)}
POST = {"post": "Our kettle sings.", "title": "Kettle", "subreddit": "tea", "summary": "It sings.", "id": "p1"}
PAIR = {"texts": ("prompt", "response_0", "response_1")}
CASES = [
    case("demonstrations.jsonl", Demonstration, texts=("prompt", "completion")),
    case("demonstrations.jsonl", Prompt, texts=("prompt",)),
    case("messages.jsonl", Demonstration, **MESSAGES),
    case("messages.jsonl", Prompt, **MESSAGES),
    case(
        "rankings.jsonl", Ranking,
        texts=("prompt", "completions.3"), lists=("completions", "ranks"), numbers=("ranks.0", "ranks.3"),
    ),
    inline(
        {"prompt": "Why?", "completions": [" So.", " No.", " Yes."], "scores": [1.5, 2, 1.5]}, Ranking,
        texts=("prompt", "completions.0"), lists=("completions", "scores"), numbers=("scores.0", "scores.2"),
    ),
    case("preferences.jsonl", Ranking, texts=("prompt", "chosen", "rejected")),
    case(
        "preferences-implicit.jsonl", Ranking,
        texts=("chosen.0.role", "chosen.0.content", "chosen.1.content"), lists=("chosen", "rejected"),
    ),
    case("preferences-unpaired.jsonl", Demonstration, texts=("prompt", "completion")),
    case("steps.jsonl", Prompt, texts=("prompt",)),
    case("prompts.jsonl", Prompt, texts=("prompt",)),
    case("documents.jsonl", Document, texts=("text",)),
    case("preferences-hh.jsonl", Ranking, "hh", texts=("chosen", "rejected")),
    case("preferences-hh.jsonl", Prompt, "hh", texts=("chosen", "rejected")),
    case("trees-oasst.jsonl", Demonstration, "oasst", texts=ROOT),
    case("trees-oasst.jsonl", Ranking, "oasst", texts=ROOT),
    case("trees-oasst.jsonl", Prompt, "oasst", texts=ROOT),
    case("comparisons-tldr.jsonl", Ranking, "tldr", numbers=("choice",), **SUMMARIES),
    case("comparisons-tldr.jsonl", Prompt, "tldr", texts=("info.post", "info.subreddit")),
    inline(POST, Demonstration, "tldr", texts=("post", "subreddit", "summary")),
    case(
        "ratings-ultrafeedback.jsonl", Ranking, "ultrafeedback",
        texts=("instruction", "completions.0.response"), lists=("completions",),
        numbers=("completions.0.overall_score",),
    ),
    case("instructions-alpaca.json", Demonstration, "alpaca", texts=("output",), filled=("instruction",)),
    case("instructions-dolly.jsonl", Demonstration, "dolly", texts=("response",), filled=("instruction",)),
    case(
        "tasks-self-instruct.jsonl", Demonstration, "self-instruct",
        texts=("instances.0.output",), lists=("instances",), filled=("instruction",),
    ),
    case("preferences-pku-saferlhf.jsonl", Ranking, "pku-saferlhf-better", numbers=("better_response_id",), **PAIR),
    case("preferences-pku-saferlhf.jsonl", Ranking, "pku-saferlhf-safer", numbers=("safer_response_id",), **PAIR),
]  # fmt: skip


@cache
def variants(of: Case) -> list[Variant]:
    """Give `VARIANTS` different ones: lines that are no row, required values spoilt, any value, then two at once."""
    chosen = list({variant.line: variant for variant in (*_lines(of.row), *_required(of))}.values())
    seen = {variant.line for variant in chosen}
    rng = random.Random(of.name)
    every = [(path, wrong) for path in _paths(of.row) for wrong in ANYTHING]
    rng.shuffle(every)
    rng.shuffle(chosen)
    for changes in (*([one] for one in every), *(rng.sample(every, 2) for _ in range(2000))):
        line, what = _dumped(_changed(of.row, changes)), " and ".join(_said(*change) for change in changes)
        if line not in seen:
            seen.add(line)
            chosen.append(Variant(what, line))
    assert len(chosen) >= VARIANTS
    return chosen[:VARIANTS]


def _lines(row: dict[str, Any]) -> Iterator[Variant]:
    """Spoil the line itself, or write the same row in another way."""
    whole = _dumped(row)
    for cut in (1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        yield Variant(f"cut after {cut} bytes", whole[:cut], False)
    for byte in (b"\xff", b"\xc3\x28", b"\xe9", b"\xed\xa0\x80"):
        yield Variant(f"{byte!r} in a text", whole.replace(b': "', b': "' + byte, 1), False)
    yield Variant("ended as on Windows", whole + b"\r", True)
    yield Variant("blanks around it", b" \t" + whole + b"  ", True)
    yield Variant("a key of its own", whole[:-1] + b', "extra": {"a": [1, null]}}', True)
    yield Variant("a null of its own", whole[:-1] + b', "extra": null}', True)
    yield Variant("a huge number of its own", whole[:-1] + b', "extra": 1' + b"0" * 5000 + b"}", False)
    yield Variant("a deep value of its own", whole[:-1] + b', "extra": ' + b"[" * 9999 + b"]" * 9999 + b"}", False)
    yield Variant("twice on a line", whole + whole, False)
    yield Variant("a comma behind it", whole + b",", False)
    yield Variant("a mark of the byte order inside the file", b"\xef\xbb\xbf" + whole)
    yield Variant("a zero byte", whole + b"\0", False)
    for other in (b"[]", b"5", b"null", b'"text"', b"NaN", b"{}", b"[" + whole + b"]", b"nonsense", b"{'a': 1}"):
        yield Variant(f"{other[:20]!r} in its place", other, False)


def _required(of: Case) -> Iterator[Variant]:
    """Spoil what a row must have."""
    for paths, values in (
        (of.texts, (*WRONG_TEXT, *NUMBERS)),
        (of.filled, (*WRONG_TEXT, *NUMBERS[2:])),
        (of.lists, WRONG_LIST),
        (of.numbers, WRONG_NUMBER),
    ):
        for path in paths:
            for wrong in values:
                yield Variant(_said(path, wrong), _dumped(_changed(of.row, [(path, wrong)])), False)
    if of.kind is Ranking:
        yield from _few(of)


def _few(of: Case) -> Iterator[Variant]:
    """Leave one completion, or make them all the same, or more than nine."""
    completions = next((name for name in ("completions", "summaries") if name in of.row), None)
    pair = next((names for names in (("chosen", "rejected"), ("response_0", "response_1")) if names[0] in of.row), None)
    if completions:
        first = of.row[completions][0]
        for values in ([first], [first] * len(of.row[completions]), [first] * 10):
            changed = of.row | {completions: values}
            if "ranks" in changed:
                changed |= {"ranks": list(range(len(values))), "finished": [True] * len(values)}
            yield Variant(f"{len(values)} completions, all alike", _dumped(changed), False)
    elif pair:
        yield Variant("two answers alike", _dumped(of.row | {pair[1]: of.row[pair[0]]}), False)


def _paths(value: Any, above: str = "") -> Iterator[str]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield f"{above}{key}"
        yield from _paths(inner, f"{above}{key}.")


def _changed(row: dict[str, Any], changes: list[tuple[str, Any]]) -> dict[str, Any]:
    """Put values in the places of others; a place that an earlier change took away is left alone."""
    changed = copy.deepcopy(row)
    for path, value in changes:
        *above, last = path.split(".")
        holder: Any = changed
        for key in above:
            holder = _inside(holder, key)
        if _inside(holder, last) is None:
            continue
        key = int(last) if isinstance(holder, list) else last
        if value == ABSENT:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(value)
    return changed


def _inside(holder: Any, key: str) -> Any:
    if isinstance(holder, list):
        return holder[int(key)] if key.isdecimal() and int(key) < len(holder) else None
    return holder.get(key) if isinstance(holder, dict) else None


def _dumped(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode()


def _said(path: str, value: object) -> str:
    return f"{path} absent" if value == ABSENT else f"{path} = {repr(value)[:30]}"


def spoilt_files(whole: bytes, count: int = VARIANTS) -> Iterator[bytes]:
    """Damage a file somewhere: cut it, take bytes out, put others in, say a part twice."""
    rng = random.Random(len(whole))
    for number in range(count):
        start = rng.randrange(len(whole))
        end = start + rng.choice((1, 2, 10, 100))
        yield (
            whole[:start],
            whole[:start] + whole[end:],
            whole[:start] + rng.choice(STRANGE) + whole[start:],
            whole[:start] + rng.choice(STRANGE) + whole[start + 1 :],
            whole[:end] + whole[start:],
        )[number % 5]
