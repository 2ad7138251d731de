"""The four records every data set is read into: Demonstration, Ranking, Prompt, Document.

A text is a plain string or a list of messages `{"role": "user", "content": "..."}`; roles are system, user, assistant.
Of a message that has more (a name, a time), role and content alone are read.
Left out: tools, images and any content that is not a string; a row that carries them is refused, not trimmed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from rlhf_pipeline.errors import DataError

Text = str | list[dict[str, str]]

ORIGIN = ("user", "source", "id", "conversation")
"""What every record may say about where it comes from."""
TEXTS = ("prompt", "completion", "completions")
"""Fields that hold a text, or several, which may be messages."""
ROLES = ("system", "user", "assistant")
MIN_RANKED, MAX_RANKED = 2, 9
"""Completions per labelled prompt; InstructGPT (Ouyang et al. 2022, section 3.5) had 4 to 9 ranked, a pair is 2."""


@dataclass(frozen=True, kw_only=True)
class Record(ABC):
    """One row of data: who wrote it (`user`), where it comes from (`source`), its name there (`id`); all optional.

    Rows of one `conversation` (a dialogue, a message tree) are never split.
    """

    needs: ClassVar[str]
    user: str | None = None
    source: str | None = None
    id: str | None = None
    conversation: str | None = None

    @abstractmethod
    def check(self, where: str) -> None:
        """Raise DataError, beginning with `where`, unless the record can be trained on."""

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], where: str) -> Self:
        """Build and check a record from a JSON object; keys it has no field for are ignored. Raises DataError."""
        known = {f.name: row[f.name] for f in fields(cls) if row.get(f.name) is not None}
        known |= {name: _role_and_content(known[name]) for name in TEXTS if name in known}
        missing = [name for name in cls._required() if name not in known]
        if missing:
            has = ", ".join(f"`{printable(name)}`" for name in row) or "no fields"
            raise DataError(f"{where}: no field `{missing[0]}`; the row has {has}; {cls.needs}")
        for name in (*ORIGIN, "labeler"):
            if type(known.get(name)) is int:
                known[name] = str(known[name])
        record = cls(**known)
        record._check_origin(where)
        record.check(where)
        return record

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object that `from_dict` reads back; fields that say nothing are left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value != {}}

    @classmethod
    def _required(cls) -> list[str]:
        return [f.name for f in fields(cls) if not f.kw_only]

    def _check_origin(self, where: str) -> None:
        for name in ORIGIN:
            value = getattr(self, name)
            if value is not None:
                _check_name(value, where, name)


@dataclass(frozen=True)
class Demonstration(Record):
    """A prompt with the answer a person would give; SFT learns `completion` only."""

    needs = "a demonstration needs `prompt` and `completion`, or `messages`"
    prompt: Text
    completion: Text

    def check(self, where: str) -> None:
        """Raise DataError on an empty or mistyped prompt or completion."""
        check_prompt(self.prompt, where)
        check_completion(self.completion, where, "completion")


@dataclass(frozen=True)
class Ranking(Record):
    """A prompt with K completions that one person ranked.

    `ranks`: K integers, 0 the best, equal numbers tie. `finished`: K booleans, False where the completion was cut off
    and so has no end-of-sequence token; absent means all finished. `labeler`: who ranked.
    An empty completion is allowed only where `finished` says True for it: a model whose first token was the end.
    """

    needs = "a ranking needs `prompt`, `completions` and `ranks`, or `chosen` and `rejected`"
    prompt: Text
    completions: list[Text]
    ranks: list[int]
    finished: list[bool] | None = field(default=None, kw_only=True)
    labeler: str | None = field(default=None, kw_only=True)
    scores: list[float] | None = field(default=None, kw_only=True)

    def check(self, where: str) -> None:
        """Raise DataError on K outside 2..9, ranks of another length, an empty completion, or nothing to compare."""
        check_prompt(self.prompt, where)
        self._check_lists(where)
        for number, completion in enumerate(self.completions):
            if not (completion == "" and self.is_finished(number) and self.finished is not None):
                check_completion(completion, where, f"completions[{number}]")
        if len({canonical([c, self.is_finished(n)]) for n, c in enumerate(self.completions)}) == 1:
            raise DataError(f"{where}: all {len(self.completions)} completions are the same text")

    def is_finished(self, number: int) -> bool:
        """Say whether completion `number` ended by itself."""
        return self.finished is None or self.finished[number]

    def _check_lists(self, where: str) -> None:
        if not isinstance(self.completions, list):
            raise DataError(f"{where}: `completions` is {shown(self.completions)}; expected a list of texts")
        count = len(self.completions)
        if not MIN_RANKED <= count <= MAX_RANKED:
            raise DataError(f"{where}: {count} completions; a ranking has {MIN_RANKED} to {MAX_RANKED}")
        _check_list(self.ranks, int, count, where, "ranks")
        if min(self.ranks) < 0:
            raise DataError(f"{where}: `ranks` is {shown(self.ranks)}; ranks count from 0, the best")
        if self.finished is not None:
            _check_list(self.finished, bool, count, where, "finished")
        if self.scores is not None:
            self._check_scores(where)
        if self.labeler is not None:
            _check_name(self.labeler, where, "labeler")

    def _check_scores(self, where: str) -> None:
        scores = self.scores
        if not isinstance(scores, list) or not all(is_finite(score) for score in scores):
            raise DataError(f"{where}: `scores` is {shown(scores)}; expected a list of finite numbers")
        if len(scores) != len(self.completions):
            raise DataError(f"{where}: {len(self.completions)} completions but {len(scores)} `scores`")


@dataclass(frozen=True)
class Prompt(Record):
    """A prompt to sample from; `facts` (columns without a field of their own) travel to reward functions and judges."""

    needs = "a prompt needs `prompt`, or `messages`"
    prompt: Text
    facts: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def check(self, where: str) -> None:
        """Raise DataError on an empty or mistyped prompt, or facts that are no JSON object."""
        check_prompt(self.prompt, where)
        if not isinstance(self.facts, dict):
            raise DataError(f"{where}: `facts` is {shown(self.facts)}; expected an object")
        for name, value in self.facts.items():
            if why := fact_problem(name, value):
                raise DataError(f"{where}: `{printable(name)}` cannot be kept as a fact ({why}); leave it out")

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], where: str) -> Self:
        """As `Record.from_dict`, but keys without a field are kept as facts; an explicit `facts` object wins."""
        record = super().from_dict(row, where)
        own = {f.name for f in fields(cls)}
        facts = {name: value for name, value in row.items() if name not in own} | record.facts
        record = replace(record, facts=facts)
        record.check(where)
        return record


@dataclass(frozen=True)
class Document(Record):
    """A text to pretrain on."""

    needs = "a document needs `text`"
    text: str

    def check(self, where: str) -> None:
        """Raise DataError on an empty text or one that is no string."""
        _check_string(self.text, where, "text")


def check_prompt(prompt: object, where: str) -> None:
    """Raise DataError unless `prompt` is a text that an assistant can answer: messages end with another's turn."""
    _check_text(prompt, where, "prompt")
    if isinstance(prompt, list) and prompt[-1]["role"] == "assistant":
        raise DataError(f"{where}: `prompt` ends with an assistant message; that one belongs into the completion")


def check_completion(completion: object, where: str, name: str) -> None:
    """Raise DataError unless `completion` is a text; messages begin and end with the assistant's turn."""
    _check_text(completion, where, name)
    if isinstance(completion, list) and {completion[0]["role"], completion[-1]["role"]} != {"assistant"}:
        raise DataError(f"{where}: `{name}` must begin and end with an assistant message")


def check_pair(chosen: object, rejected: object, where: str) -> None:
    """Raise DataError unless both are completions and differ."""
    check_completion(chosen, where, "chosen")
    check_completion(rejected, where, "rejected")
    if chosen == rejected:
        raise DataError(f"{where}: `chosen` and `rejected` are the same text")


def completion_text(completion: Text) -> str:
    """Give a completion as a plain string: itself, or the contents of its messages, one under the other."""
    return completion if isinstance(completion, str) else "\n\n".join(message["content"] for message in completion)


def completions_of(record: Record) -> list[Text]:
    """Give the completions a record has: the one of a demonstration, all of a ranking."""
    if isinstance(record, Ranking):
        return record.completions
    return [record.completion] if isinstance(record, Demonstration) else []


def canonical(value: Any) -> str:
    """Write `value` as JSON with sorted keys and nothing to spare: equal values give equal strings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def fingerprint(records: Iterable[Record]) -> str:
    """Hash what the records say, in order: "sha256:" and 64 hex digits. Where they were read from plays no part."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{type(record).__name__} {canonical(record.to_dict())}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def shown(value: object) -> str:
    """Show a value in an error: its JSON-like form on one line, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _role_and_content(value: Any) -> Any:
    """Reduce messages, also those in a list of texts, to what is read of them; and to `tool_calls`, to be refused."""
    if isinstance(value, list):
        return [_role_and_content(item) for item in value]
    if isinstance(value, dict) and {"role", "content"} <= value.keys():
        calls = {"tool_calls": value["tool_calls"]} if value.get("tool_calls") else {}
        return {"role": value["role"], "content": value["content"], **calls}
    return value


def _check_text(value: object, where: str, name: str) -> None:
    if not isinstance(value, list):
        _check_string(value, where, name)
        return
    if not value:
        raise DataError(f"{where}: `{name}` has no messages")
    for number, message in enumerate(value):
        place = f"{name}[{number}]"
        if not (isinstance(message, dict) and "role" in message and "content" in message):
            raise DataError(f"{where}: `{place}` is {shown(message)}; expected an object with `role` and `content`")
        if message["role"] not in ROLES:
            raise DataError(f"{where}: `{place}.role` is {shown(message['role'])}; expected one of {', '.join(ROLES)}")
        if message.get("tool_calls"):
            raise DataError(f"{where}: `{place}` calls tools, which no stage trains on")
        _check_string(message["content"], where, f"{place}.content")


def _check_string(value: object, where: str, name: str) -> None:
    _check_name(value, where, name)
    if isinstance(value, str) and not value.strip():
        raise DataError(f"{where}: `{name}` is empty")


def _check_name(value: object, where: str, name: str) -> None:
    if not isinstance(value, str):
        raise DataError(f"{where}: `{name}` is {shown(value)}; expected a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: `{name}` is not valid UTF-8 at character {error.start}") from None


def is_finite(value: object) -> bool:
    """Say whether `value` is a number that a float can hold: no boolean, no NaN, no infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def fact_problem(name: str, value: object) -> str | None:
    """Say why a prompt cannot keep `value` as a fact, or None where it can."""
    try:
        json.dumps({name: value}, sort_keys=True, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def printable(text: object) -> str:
    """Escape what no terminal and no file takes: the lone surrogates that names of columns may hold."""
    return str(text).encode(errors="backslashreplace").decode()


def _check_list(values: object, of: type, count: int, where: str, name: str) -> None:
    if not isinstance(values, list) or any(type(value) is not of for value in values):
        raise DataError(f"{where}: `{name}` is {shown(values)}; expected a list of {of.__name__}")
    if len(values) != count:
        raise DataError(f"{where}: {count} completions but {len(values)} `{name}`")
