"""What is compared: prompts without the system's words, answers, and hashes that leave the origin out."""

from __future__ import annotations

from rlhf_pipeline.data.curation.text import (
    answers,
    best_answer,
    content_hash,
    hash64,
    normalised,
    prompt_text,
    rewritten,
    words,
)
from rlhf_pipeline.records import Demonstration, Document, Prompt, Ranking

SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Why?"}
RANKING = Ranking("Why?", ["So.", "Because."], [1, 0], finished=[True, False])


def test_a_system_message_is_no_part_of_the_prompt() -> None:
    reply = {"role": "assistant", "content": "So."}
    assert prompt_text(Prompt([SYSTEM, ASK, reply, ASK])) == "Why?\n\nSo.\n\nWhy?"
    assert prompt_text(Prompt("Why?")) == prompt_text(Document("Why?")) == "Why?"
    assert prompt_text(Prompt([SYSTEM])) == "Be brief."


def test_answers_and_the_best_of_them() -> None:
    assert answers(RANKING) == ["So.", "Because."]
    assert best_answer(RANKING) == ("Because.", False)
    assert best_answer(Demonstration("a", "b")) == ("b", True)
    assert (answers(Prompt("a")), best_answer(Prompt("a"))) == ([], None)


def test_what_reads_the_same_is_the_same() -> None:
    assert normalised("  Ｗhy\n NOT? ") == "why not?"
    assert words("Why -- not, A1?") == ["why", "not", "a1"]
    assert words("用Python 3写一个函数。") == ["用", "python", "3", "写", "一", "个", "函", "数"]
    assert words("ｶﾞ行 ไทย 한국어 말") == ["ガ", "行", "ไ", "ท", "ย", "한국어", "말"]
    assert words("🙂 -- ?!") == []


def test_the_hash_is_the_same_in_every_process() -> None:
    assert hash64("") == 16476032584258269876
    assert hash64("a") != hash64("b")


def test_content_leaves_the_origin_out_and_nothing_else() -> None:
    one = Demonstration("a", "b", user="u", source="s", id="1", conversation="c")
    assert content_hash(one) == content_hash(Demonstration("a", "b"))
    assert content_hash(one) != content_hash(Demonstration("a", "c"))
    ranked = Ranking("a", ["b", "c"], [0, 1], labeler="ana", user="u")
    assert content_hash(ranked) == content_hash(Ranking("a", ["b", "c"], [0, 1], labeler="ana"))
    assert content_hash(ranked) != content_hash(Ranking("a", ["b", "c"], [0, 1], labeler="ben", user="u"))
    assert content_hash(Prompt("a", facts={"x": 1})) != content_hash(Prompt("a", facts={"x": 2}))


def test_every_text_is_rewritten_and_nothing_but_texts() -> None:
    up = str.upper
    assert rewritten(Prompt([ASK], facts={"x": ["a", {"y": "b"}], "n": 1}), up) == Prompt(
        [ASK | {"content": "WHY?"}], facts={"x": ["A", {"y": "B"}], "n": 1}
    )
    assert rewritten(Demonstration("a", [ASK | {"role": "assistant"}], user="u"), up) == Demonstration(
        "A", [{"role": "assistant", "content": "WHY?"}], user="u"
    )
    assert rewritten(RANKING, up).completions == ["SO.", "BECAUSE."]  # type: ignore[attr-defined]
    assert rewritten(Document("a"), up) == Document("A")
