"""Steps that a row alone decides: length, truncation, contamination."""

from __future__ import annotations

import pytest

from rlhf_pipeline.data.curation.contamination import EvaluationText
from rlhf_pipeline.data.curation.lengths import LengthLimits, token_counter
from rlhf_pipeline.data.curation.truncation import LONG, why_truncated
from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.records import Demonstration, Prompt, Ranking, Record

THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"
PROSE = "It was a long day in the old town. " * (LONG // 30)


@pytest.mark.parametrize(
    ("limits", "record", "why"),
    [
        (LengthLimits(max_prompt=3), Prompt("abc"), None),
        (LengthLimits(max_prompt=3), Prompt("abcd"), "prompt too long (characters)"),
        (LengthLimits(min_answer=2), Demonstration("a", " b "), "answer too short (characters)"),
        (LengthLimits(min_answer=2), Ranking("a", ["b", "bb"], [1, 0]), None),
        (LengthLimits(min_answer=2), Prompt("a"), None),
        (LengthLimits(max_answer=2), Ranking("a", ["b", "bbb"], [0, 1]), "answer too long (characters)"),
        (LengthLimits(max_tokens=4, count_tokens=len), Ranking("ab", ["b", "bb"], [0, 1]), None),
        (LengthLimits(max_tokens=3, count_tokens=len), Ranking("ab", ["b", "bb"], [0, 1]), "too long (tokens)"),
        (LengthLimits(max_tokens=3, count_tokens=len), Prompt("abc"), None),
    ],
)
def test_lengths(limits: LengthLimits, record: Record, why: str | None) -> None:
    assert limits.why_not(record) == why


def test_a_tokenizer_that_is_not_there() -> None:
    with pytest.raises(ModelError, match=r"--tokenizer \./nothing: no tokenizer there"):
        token_counter("./nothing")


@pytest.mark.parametrize("ending", [".", "!", "?", '"', ")", "。", "42", ":", "\n- the last of a list", "🙂", "```"])
def test_answers_that_end(ending: str) -> None:
    assert why_truncated(Demonstration("a", PROSE + "The end" + ending)) is None


def test_answers_that_do_not_end() -> None:
    middle = "answer ends in the middle of a sentence"
    assert why_truncated(Demonstration("a", PROSE + "And then the")) == middle
    assert why_truncated(Demonstration("a", PROSE + "And then,")) == middle
    assert why_truncated(Demonstration("a", "Paris")) is None
    assert why_truncated(Prompt("a")) is None


def test_a_ranking_is_judged_by_its_best_answer() -> None:
    cut = PROSE + "And then the"
    assert why_truncated(Ranking("a", [cut, "b."], [1, 0])) is None
    assert why_truncated(Ranking("a", [cut, "b."], [0, 1])) == "answer ends in the middle of a sentence"
    unfinished = Ranking("a", ["b.", "c."], [0, 1], finished=[False, True])
    assert why_truncated(unfinished) == "best answer is marked as unfinished"


def evaluation(share: float, *prompts: str) -> EvaluationText:
    index = EvaluationText(13, share)
    for number, prompt in enumerate(prompts, start=1):
        index.add(Prompt(prompt), f"eval:{number}")
    return index


def test_one_ngram_in_common_is_enough() -> None:
    index = evaluation(0, f"{THIRTEEN} fourteen", "short")
    assert index.why_contaminated(Demonstration("a", f"Say: {THIRTEEN.upper()}!")) == (
        "contains evaluation text: 50% of the 13-grams of eval:1"
    )
    assert index.why_contaminated(Prompt(THIRTEEN.removeprefix("one "))) is None


def test_a_share_of_the_evaluation_text_may_be_asked_for() -> None:
    index = evaluation(0.6, f"{THIRTEEN} fourteen", f"{THIRTEEN} and something else")
    assert index.why_contaminated(Prompt(THIRTEEN)) is None
    assert index.why_contaminated(Prompt(f"zero {THIRTEEN} fourteen")) == (
        "contains evaluation text: 100% of the 13-grams of eval:1"
    )


@pytest.mark.parametrize(
    "sentence",
    [
        "请用一句话概括这篇关于气候变化的文章",
        "この記事を一文で要約してください",
        "ช่วยสรุปบทความนี้ให้หน่อยได้ไหม",
        "ຊ່ວຍສະຫຼຸບບົດຄວາມນີ້ໃຫ້ແດ່",
    ],
)
def test_scripts_without_blanks(sentence: str) -> None:
    index = evaluation(0, sentence)
    assert index.why_contaminated(Demonstration("a", f"abc{sentence}吗{sentence[:4]}")) == (
        "contains evaluation text: 100% of the 13-grams of eval:1"
    )
    assert index.why_contaminated(Prompt(sentence[:12])) is None


def test_a_prompt_without_a_word_is_no_other_one() -> None:
    index = evaluation(0, "🙂🙂", "?!")
    assert index.why_contaminated(Prompt("🎉")) is None
    assert index.why_contaminated(Prompt("🙂🙂")) is None


def test_a_short_evaluation_text_must_be_the_whole_prompt() -> None:
    index = evaluation(0, "Why not?")
    assert index.why_contaminated(Prompt("why NOT")) == "is an evaluation prompt: eval:1"
    assert index.why_contaminated(Prompt("why not now")) is None
    assert index.why_contaminated(Demonstration("a", "why not")) is None
