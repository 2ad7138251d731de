"""Message trees of OpenAssistant (Koepf et al. 2023): a root prompt, replies below replies, siblings ranked by people.

Demonstration: every assistant message with the thread above it. Ranking: the ranked assistant replies to one message.
Prompt: every thread that ends with a prompter's message. A message made by a model (`synthetic`) or deleted is dropped
with everything below it; so are the groups with fewer than two or more than nine ranked replies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import MAX_RANKED, MIN_RANKED, Demonstration, Prompt, Ranking, Record, shown

_ROLES = {"prompter": "user", "assistant": "assistant"}
Message = dict[str, Any]
Thread = list[dict[str, str]]


def matches(row: dict[str, Any]) -> bool:
    """Say whether the row is a tree."""
    return "message_tree_id" in row and isinstance(row.get("prompt"), dict)


def convert(row: dict[str, Any], kind: type[Record], where: str) -> Iterator[Record | str]:
    """Give the records of one tree, and a word of why for each message or group dropped. Raises DataError."""
    if not isinstance(row.get("prompt"), dict):
        raise DataError(f"{where}: `prompt` is {shown(row.get('prompt'))}; expected the root message of a tree")
    tree = row.get("message_tree_id")
    yield from _walk(row["prompt"], [], kind, where, None if tree is None else str(tree))


def _walk(message: Message, above: Thread, kind: type[Record], where: str, tree: str | None) -> Iterator[Record | str]:
    """Go down the tree from `message`, whose thread `above` was kept."""
    for reason in ("synthetic", "deleted"):
        if message.get(reason):
            yield from (reason for _ in range(_size(message, where)))
            return
    thread = [*above, _turn(message, where)]
    replies = _replies(message, where)
    origin = {"user": message.get("user_id"), "id": message.get("message_id"), "conversation": tree}
    if thread[-1]["role"] == "assistant":
        if kind is Demonstration:
            yield Demonstration.from_dict(origin | {"prompt": above, "completion": thread[-1]["content"]}, where)
    elif kind is Prompt:
        yield Prompt.from_dict(origin | {"prompt": thread}, where)
    elif kind is Ranking and replies:
        yield _ranking(thread, replies, origin, where)
    for reply in replies:
        yield from _walk(reply, thread, kind, where, tree)


def _ranking(thread: Thread, replies: list[Message], origin: dict[str, Any], where: str) -> Record | str:
    """Rank the replies that carry a rank and that people wrote."""
    ranked = [r for r in replies if r.get("rank") is not None and not r.get("synthetic") and not r.get("deleted")]
    if len(ranked) < MIN_RANKED:
        return "fewer than two ranked replies"
    if len(ranked) > MAX_RANKED:
        return "more than nine ranked replies"
    completions = [_turn(reply, where)["content"] for reply in ranked]
    ranks = [reply["rank"] for reply in ranked]
    return Ranking.from_dict(origin | {"prompt": thread, "completions": completions, "ranks": ranks}, where)


def _turn(message: Message, where: str) -> dict[str, str]:
    if message.get("role") not in list(_ROLES) or not isinstance(message.get("text"), str):
        raise DataError(f"{where}: {shown(message)}; expected a message with `role` (prompter, assistant) and `text`")
    return {"role": _ROLES[message["role"]], "content": message["text"].strip()}


def _replies(message: Message, where: str) -> list[Message]:
    replies = message.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise DataError(f"{where}: `replies` is {shown(replies)}; expected a list of messages")
    return replies


def _size(message: Message, where: str) -> int:
    return 1 + sum(_size(reply, where) for reply in _replies(message, where))
