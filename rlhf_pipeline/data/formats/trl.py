"""Rows in the columns TRL documents, and in this project's own; every text plain or as messages.

messages                            Demonstration (the last assistant turn is the completion), Prompt
prompt, completion                  Demonstration, Prompt
prompt, completion, label           the same, but no Demonstration where the label is false (unpaired preference)
prompt, chosen, rejected, margin    Ranking of two, Prompt; the margin is optional
chosen, rejected                    the same; the prompt is what both begin with, of plain text up to a border
prompt, completions, ranks, ...     Ranking, Prompt; `scores`, the higher the better, may stand for the ranks
prompt, completions, labels         Prompt (stepwise supervision: the completions are steps of one answer)
prompt, ...                         Prompt; the other columns become its facts
text                                Document
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from os.path import commonprefix
from typing import Any

from rlhf_pipeline.data.formats.scores import ranks
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Demonstration, Prompt, Ranking, Record, check_pair, shown

Row = dict[str, Any]
_SENTENCE = re.compile(r"\n|[.?!:][\"')\]]*(?=\s)|[。？！：]")
_WORD = re.compile(r"\S(?=\s)")


def matches(row: Row) -> bool:
    """Say yes: columns that are not there are reported by the record that needs them."""
    return True


def convert(row: Row, kind: type[Record], where: str) -> Iterator[Record | str]:
    """Give the one record of a row, or why it is left out. Raises DataError where columns do not fit `kind`."""
    if kind is Demonstration:
        _refuse_no_demonstration(row, where)
        if _label(row) is False:
            yield "labelled as a bad completion"
            return
        row = _from_messages(row, where)
    elif kind is Ranking:
        _refuse_no_ranking(row, where)
        row = _with_ranks(_from_pair(_with_prompt(row, where), where), where)
    elif kind is Prompt:
        row = _prompt_of_messages(_with_prompt(row, where), where)
    yield kind.from_dict(row, where)


def _label(row: Row) -> bool | None:
    """Give what an unpaired preference says of its completion; None where `label` is absent or something else."""
    label = row.get("label")
    if isinstance(label, str):
        return {"true": True, "false": False}.get(label.lower())
    return label if isinstance(label, bool) else None


def _is_stepwise(row: Row) -> bool:
    return isinstance(row.get("completions"), list) and isinstance(row.get("labels"), list)


def _refuse_no_demonstration(row: Row, where: str) -> None:
    if _is_stepwise(row):
        raise DataError(
            f"{where}: `labels` rate the steps of one answer (stepwise supervision); no stage learns from them"
        )
    if "text" in row and not {"prompt", "messages"} & row.keys():
        raise DataError(
            f"{where}: `text` does not say what is prompt and what completion; `rlhf pretrain` takes raw text"
        )


def _refuse_no_ranking(row: Row, where: str) -> None:
    if _is_stepwise(row) and "ranks" not in row:
        raise DataError(
            f"{where}: `labels` rate the steps of one answer (stepwise supervision); no stage learns from them"
        )
    if _label(row) is not None and not {"chosen", "completions"} & row.keys():
        raise DataError(
            f"{where}: `label` calls one completion good or bad (unpaired preference), which ranks nothing; "
            "`rlhf sft` takes the good ones"
        )


def _with_ranks(row: Row, where: str) -> Row:
    """Rank by `scores` where there are no ranks."""
    if row.get("ranks") is not None or row.get("scores") is None:
        return row
    return row | {"ranks": ranks(row["scores"], where)}


def _from_messages(row: Row, where: str) -> Row:
    """Split `messages` into what leads up to the last assistant turn and that turn."""
    if row.get("messages") is None or row.get("completion") is not None:
        return row
    messages = _message_list(row["messages"], where, "messages")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise DataError(f"{where}: `messages` must hold a prompt and end with an assistant message")
    return row | {"prompt": messages[:-1], "completion": _as_text(messages[-1:])}


def _prompt_of_messages(row: Row, where: str) -> Row:
    """Take `messages` without a closing assistant turn as the prompt."""
    if row.get("messages") is None or row.get("prompt") is not None:
        return row
    messages = _message_list(row["messages"], where, "messages")
    ends_with_answer = messages[-1]["role"] == "assistant"
    return {k: v for k, v in row.items() if k != "messages"} | {
        "prompt": messages[:-1] if ends_with_answer else messages
    }


def _with_prompt(row: Row, where: str) -> Row:
    """Take the common beginning of `chosen` and `rejected` out of them where the prompt is inside both.

    Also where a `prompt` column repeats it (HuggingFaceH4/ultrafeedback_binarized does).
    """
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if chosen is None or rejected is None:
        return row
    if isinstance(chosen, list) and isinstance(rejected, list):
        chosen, rejected = _message_list(chosen, where, "chosen"), _message_list(rejected, where, "rejected")
        if row.get("prompt") is not None and chosen[0]["role"] == "assistant":
            return row
        shared = _shared_messages(chosen, rejected)
    elif row.get("prompt") is not None:
        return row
    elif isinstance(chosen, str) and isinstance(rejected, str):
        shared = _shared_text(chosen, rejected)
    else:
        raise DataError(
            f"{where}: `chosen` is {shown(chosen)} but `rejected` {shown(rejected)}; expected two of a kind"
        )
    if not shared:
        raise DataError(f"{where}: `chosen` and `rejected` share no beginning; put it into a column `prompt`")
    return row | {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _shared_text(chosen: str, rejected: str) -> int:
    """Count the characters of the prompt that plain texts share; the blank after it belongs to the completions.

    TRL takes all they share, and so the first words of two answers that begin alike, or half a word. What is shared is
    cut back to the end of its last line, sentence or label ("A:"), else to that of its last word, else left as it is.
    A label that everything begins with is no border: what follows it is the question.
    """
    shared = commonprefix([chosen, rejected])
    longest = min(len(shared), len(chosen.rstrip()) - 1, len(rejected.rstrip()) - 1)  # each completion says something
    both_blank = all(text[len(shared) : len(shared) + 1].isspace() for text in (chosen, rejected))
    seen = shared + " " * both_blank

    def ends(border: re.Pattern[str]) -> list[int]:
        found = (match.end() for match in border.finditer(seen))
        return [end for end in found if end <= longest and shared[:end].strip()]

    sentences = ends(_SENTENCE)
    if sentences and shared[sentences[0] - 1] in ":：":
        sentences.pop(0)
    return (sentences or ends(_WORD) or [len(shared.rstrip(" "))])[-1]


def _shared_messages(chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> int:
    """Count the leading messages both have, up to the last turn that is not the assistant's."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and chosen[shared - 1]["role"] == "assistant":
        shared -= 1
    return shared


def _from_pair(row: Row, where: str) -> Row:
    """Turn `chosen` and `rejected` into a ranking of two; a `margin` is the difference of their scores."""
    if row.get("completions") is not None or row.get("chosen") is None or row.get("rejected") is None:
        return row
    pair = [_as_text(row["chosen"]), _as_text(row["rejected"])]
    check_pair(pair[0], pair[1], where)
    scores = {} if row.get("margin") is None else {"scores": [row["margin"], 0]}
    return row | {"completions": pair, "ranks": [0, 1]} | scores


def _as_text(completion: Any) -> Any:
    """Write a lone assistant message as its content; leave everything else to the record's own checks."""
    if isinstance(completion, list) and len(completion) == 1 and isinstance(completion[0], dict):
        message = completion[0]
        if message.get("role") == "assistant" and isinstance(message.get("content"), str):
            return completion if message.get("tool_calls") else message["content"]
    return completion


def _message_list(value: Any, where: str, name: str) -> list[dict[str, str]]:
    """Check that `value` looks like messages, so that their roles can be read."""
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: `{name}` is {shown(value)}; expected a list of messages")
    for number, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            seen = f"`{name}[{number}]` is {shown(message)}"
            raise DataError(f"{where}: {seen}; expected an object with `role` and `content`")
    return value
