"""OpenAssistant trees, on one small tree worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_pipeline.data.formats.oasst import convert, matches
from rlhf_pipeline.errors import DataError
from rlhf_pipeline.records import Demonstration, Prompt, Ranking, Record


def message(role: str, text: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"message_id": text, "role": role, "text": text, "replies": list(replies)} | more


def tree(prompt: Any) -> dict[str, Any]:
    return {"message_tree_id": "t", "prompt": prompt}


ROOT = message(
    "prompter",
    "ask",
    message("assistant", "second", message("prompter", "more", message("assistant", "lone", rank=0)), rank=1),
    message("assistant", "first", rank=0),
    message("assistant", "machine", message("prompter", "below it"), rank=2, synthetic=True),
    message("assistant", "gone", rank=3, deleted=True),
    message("assistant", "unranked"),
)
ASK = {"role": "user", "content": "ask"}
THREAD = [ASK, {"role": "assistant", "content": "second"}, {"role": "user", "content": "more"}]


def records(kind: type[Record]) -> list[Record | str]:
    return list(convert(tree(ROOT), kind, "f:1"))


def test_every_human_answer_is_a_demonstration() -> None:
    assert [record for record in records(Demonstration) if isinstance(record, Record)] == [
        Demonstration([ASK], "second", id="second", conversation="t"),
        Demonstration(THREAD, "lone", id="lone", conversation="t"),
        Demonstration([ASK], "first", id="first", conversation="t"),
        Demonstration([ASK], "unranked", id="unranked", conversation="t"),
    ]


def test_ranked_human_siblings_are_a_ranking() -> None:
    assert [record for record in records(Ranking) if isinstance(record, Record)] == [
        Ranking([ASK], ["second", "first"], [1, 0], id="ask", conversation="t")
    ]


def test_every_thread_that_waits_for_an_answer_is_a_prompt() -> None:
    assert [record for record in records(Prompt) if isinstance(record, Record)] == [
        Prompt([ASK], id="ask", conversation="t"),
        Prompt(THREAD, id="more", conversation="t"),
    ]


def test_what_is_dropped_is_named_once_for_each_message() -> None:
    assert [why for why in records(Demonstration) if isinstance(why, str)] == ["synthetic", "synthetic", "deleted"]
    reasons = sorted(why for why in records(Ranking) if isinstance(why, str))
    assert reasons == ["deleted", "fewer than two ranked replies", "synthetic", "synthetic"]


def test_more_replies_than_a_ranking_holds_do_not_lose_the_tree() -> None:
    pair = [message("assistant", "a", rank=0), message("assistant", "b", rank=1)]
    first = message("assistant", "0", message("prompter", "more", *pair), rank=0)
    many = [first, *(message("assistant", str(number), rank=number) for number in range(1, 10))]
    found = list(convert(tree(message("prompter", "ask", *many)), Ranking, "f:1"))
    assert found[0] == "more than nine ranked replies"
    assert [record.completions for record in found if isinstance(record, Ranking)] == [["a", "b"]]


def test_a_tree_is_recognised() -> None:
    assert matches(tree(ROOT))
    assert not matches({"prompt": "ask"})


BAD: list[tuple[dict[str, Any], type[Record], str]] = [
    (tree("ask"), Prompt, "`prompt` is 'ask'; expected the root message of a tree"),
    (tree({"role": "human", "text": "x"}), Prompt, "expected a message with `role` (prompter, assistant) and `text`"),
    (tree({"role": "prompter"}), Prompt, "expected a message with `role` (prompter, assistant) and `text`"),
    (tree(message("prompter", " ")), Prompt, "`prompt[0].content` is empty"),
    (tree(message("prompter", "x", replies="y")), Prompt, "`replies` is 'y'; expected a list of messages"),
    (
        tree(message("prompter", "x", message("assistant", "a", rank=True), message("assistant", "b", rank=1))),
        Ranking,
        "`ranks` is [True, 1]; expected a list of int",
    ),
    (tree(message(["prompter"], "x")), Prompt, "expected a message with `role`"),  # type: ignore[arg-type]
    (tree(message("prompter", "x", deleted=True, replies=5)), Prompt, "`replies` is 5; expected a list of messages"),
]


@pytest.mark.parametrize(("row", "kind", "words"), BAD, ids=[words[:30] for _, _, words in BAD])
def test_trees_that_do_not_fit(row: dict[str, Any], kind: type[Record], words: str) -> None:
    with pytest.raises(DataError) as caught:
        list(convert(row, kind, "f:1"))
    assert words in str(caught.value)
    assert str(caught.value).startswith("f:1: ")
