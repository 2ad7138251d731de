"""Text to ids, by hand: byte `c` of printable ASCII is id ord(c) - 31, a space 222, <pad> 0, <eos> 1."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rlhf_pipeline.encoding import LongRow, decode_completion, encode_completion, encode_prompt, fit
from rlhf_pipeline.errors import DataError, ModelError
from rlhf_pipeline.tokenization import PLAIN_TEMPLATE
from tests.tiny import CHAT_TEMPLATE, make_tokenizer
from tests.vocabularies import vocabulary

EOS, SPACE = 1, 222
USER = [{"role": "user", "content": "hi"}]


def ids(text: str) -> list[int]:
    """The ids of printable ASCII, computed without a tokenizer."""
    return [SPACE if letter == " " else ord(letter) - 31 for letter in text]


@pytest.fixture
def plain() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def chat() -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def merging() -> PreTrainedTokenizerFast:
    """Merges `a` and `b` into id 258."""
    vocabulary = make_tokenizer().get_vocab() | {"ab": 258}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture
def with_bos() -> PreTrainedTokenizerFast:
    """Puts <bos>, id 2, before every text; the bytes follow from id 3."""
    tokenizer = make_tokenizer(("<pad>", "<eos>", "<bos>"), bos_token="<bos>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)]
    )
    return tokenizer


def test_plain_text(plain: PreTrainedTokenizerFast) -> None:
    assert encode_prompt(plain, "Q: x") == [50, 27, 222, 89]
    assert encode_completion(plain, "Q: x", " yes") == [222, 90, 70, 84, EOS]
    assert encode_completion(plain, "Q: x", " yes", finished=False) == [222, 90, 70, 84]


def test_empty_completion_of_a_model_that_ended_at_once(plain: PreTrainedTokenizerFast) -> None:
    assert encode_completion(plain, "Q", "") == [EOS]


def test_bos_stands_before_the_prompt_only(with_bos: PreTrainedTokenizerFast) -> None:
    assert encode_prompt(with_bos, "a") == [2, 67]
    assert encode_completion(with_bos, "a", "b") == [68, EOS]


def test_messages_follow_the_template(chat: PreTrainedTokenizerFast) -> None:
    assert encode_prompt(chat, USER) == ids("<user>hi<assistant>")
    assert encode_completion(chat, USER, "yo") == [*ids("yo"), EOS]
    assert encode_completion(chat, USER, "yo", finished=False) == ids("yo")
    assert encode_completion(chat, USER, [{"role": "assistant", "content": "yo"}]) == [*ids("yo"), EOS]


def test_completion_of_several_messages_keeps_what_stands_between(chat: PreTrainedTokenizerFast) -> None:
    turns = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    middle = [*ids("a"), EOS, *ids("<user>b<assistant>c")]
    assert encode_completion(chat, USER, turns) == [*middle, EOS]
    assert encode_completion(chat, USER, turns, finished=False) == middle


def test_newline_after_the_last_eos_is_no_part_of_the_completion(chat: PreTrainedTokenizerFast) -> None:
    chat.chat_template = PLAIN_TEMPLATE  # writes a newline after EOS
    assert chat.decode(encode_prompt(chat, USER)) == "User: hi\nAssistant:"
    assert encode_completion(chat, USER, "yo") == [*ids(" yo"), EOS]
    assert encode_completion(chat, USER, "yo", finished=False) == ids(" yo")


def test_cut_off_answer_has_no_end_of_turn_that_is_not_eos(chat: PreTrainedTokenizerFast) -> None:
    """ChatML with another EOS: <end> closes a finished turn, and the policy never wrote it where it was cut off."""
    chat.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert encode_completion(chat, USER, "end") == [*ids("end<end>"), EOS]
    assert encode_completion(chat, USER, "end", finished=False) == ids("end")


def test_text_after_an_eos_in_the_middle_is_kept(plain: PreTrainedTokenizerFast) -> None:
    assert encode_completion(plain, "Q", "a<eos>b") == [*ids("a"), EOS, *ids("b"), EOS]
    assert encode_completion(plain, "Q", "a<eos>") == [*ids("a"), EOS]


def test_merge_across_the_border_is_undone(merging: PreTrainedTokenizerFast) -> None:
    assert merging("xab")["input_ids"] == [*ids("x"), 258]
    assert encode_prompt(merging, "xa") == ids("xa")
    assert encode_completion(merging, "xa", "bab") == [*ids("b"), 258, EOS]
    assert encode_completion(merging, "x", "ab") == [258, EOS]
    merging.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    prompt = [{"role": "user", "content": "xa"}]
    assert encode_completion(merging, prompt, "bab") == [*ids("b"), 258, EOS]


@pytest.mark.parametrize("name", ["plain", "chat", "merging", "with_bos"])
def test_prompt_and_completion_together_say_the_text(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    both = encode_prompt(tokenizer, "say a") + encode_completion(tokenizer, "say a", "b and ab é")
    assert both.count(EOS) == 1 and both[-1] == EOS
    assert tokenizer.decode(both, skip_special_tokens=True) == "say ab and ab é"


def test_template_that_rewrites_the_prompt_is_refused(chat: PreTrainedTokenizerFast) -> None:
    chat.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ModelError, match="renders a prompt differently .*--chat_template_path"):
        encode_completion(chat, USER, "yo")


@pytest.mark.parametrize(
    ("template", "why"), [("{{ raise_exception('no system') }}", "no system"), ("{% if %}", "Expected an expression")]
)
def test_template_that_refuses_is_one_line(chat: PreTrainedTokenizerFast, template: str, why: str) -> None:
    chat.chat_template = template
    with pytest.raises(ModelError, match=f"refuses these messages .{why}.*--chat_template_path"):
        encode_prompt(chat, USER)


def test_tokenizer_without_eos_is_refused() -> None:
    with pytest.raises(ModelError, match="no EOS token; name one of its tokens with `--eos_token`"):
        encode_completion(make_tokenizer(eos_token=None), "Q", "a")


def test_row_that_fits_is_left_alone(plain: PreTrainedTokenizerFast) -> None:
    assert fit(plain, "four", 3, 7, "x.jsonl:1", "error") == "four"


def test_long_row_by_choice(plain: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match=r"x.jsonl:1: 8 tokens, more than the 7 that fit; .*--on_long_row skip"):
        fit(plain, "fours", 3, 7, "x.jsonl:1", "error")
    assert fit(plain, "fours", 3, 7, "x.jsonl:1", "skip") == LongRow("x.jsonl:1", 8, 7)
    assert fit(plain, "fours", 3, 7, "x.jsonl:1", "truncate") == "ours"


def test_truncation_leaves_special_tokens_their_room(with_bos: PreTrainedTokenizerFast) -> None:
    assert fit(with_bos, "abcdef", 2, 6, "x:1", "truncate") == "def"  # <bos> d e f, and two ids of completion


def test_truncation_cuts_between_characters(plain: PreTrainedTokenizerFast) -> None:
    """é takes two bytes, so 3 ids hold `éb`, and 2 hold `b` alone rather than half a letter."""
    assert fit(plain, "aéb", 0, 3, "x:1", "truncate") == "éb"
    assert fit(plain, "aéb", 0, 2, "x:1", "truncate") == "b"


@pytest.mark.parametrize("room", [2, 1, 0, -5])
def test_completion_is_never_cut(plain: PreTrainedTokenizerFast, room: int) -> None:
    assert fit(plain, "abc", 2, room, "x:1", "truncate") == LongRow("x:1", 5, room)


def dialogue(*contents: str, system: str = "") -> list[dict[str, str]]:
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns] if system else turns


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (100, ("one", "two", "three", "four", "five")),
        (67, ("three", "four", "five")),
        (60, ("three", "four", "five")),
        (30, ("five",)),
        (24, ("ive",)),
    ],
)
def test_dialogue_loses_its_oldest_turns(chat: PreTrainedTokenizerFast, room: int, kept: tuple[str, ...]) -> None:
    prompt = dialogue("one", "two", "three", "four", "five")
    fitted: Any = fit(chat, prompt, 4, room, "x:1", "truncate")
    assert [turn["content"] for turn in fitted] == list(kept)
    assert fitted[0]["role"] == fitted[-1]["role"] == "user"
    assert len(encode_prompt(chat, fitted)) + 4 <= room


def test_system_message_stays(chat: PreTrainedTokenizerFast) -> None:
    prompt = dialogue("one", "two", "three", system="be kind")
    assert fit(chat, prompt, 0, 40, "x:1", "truncate") == dialogue("three", system="be kind")
    assert fit(chat, prompt, 0, 36, "x:1", "truncate") == dialogue("hree", system="be kind")
    alone = [{"role": "system", "content": "be kind"}]
    assert fit(chat, alone, 0, 22, "x:1", "truncate") == [{"role": "system", "content": "ind"}]


@pytest.mark.parametrize("kind", ["bytes", "bpe", "pieces"])
@pytest.mark.parametrize("completion", [" the cat", "!", ", the dog ran .", "  two blanks"])
@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_a_completion_is_decoded_to_the_text_that_it_encodes(kind: str, completion: str, chat: bool) -> None:
    """SentencePiece's decoder drops the blank that ids begin with, and its templates write one of their own."""
    tokenizer = vocabulary(kind)
    prompt = USER if chat else "say some"
    found = encode_completion(tokenizer, prompt, completion, finished=False)
    assert decode_completion(tokenizer, prompt, found) == completion


def test_a_sampled_completion_keeps_its_blank() -> None:
    """Ids that no text is encoded into: what follows a plain prompt is read after it, an answer to messages alone."""
    tokenizer = vocabulary("pieces")
    sampled = tokenizer.convert_tokens_to_ids(["▁", "c", "a", "t"])
    assert tokenizer.decode(sampled) == "cat"
    assert tokenizer("say cat")["input_ids"][-len(sampled) :] != sampled
    assert decode_completion(tokenizer, "say", sampled) == " cat"
    assert decode_completion(tokenizer, USER, sampled) == "cat"
    assert decode_completion(tokenizer, "say", []) == ""


def test_a_completion_that_begins_inside_a_letter_is_decoded_alone() -> None:
    """A prompt that the tokenizer cannot tell from what follows: its decoded form is not how the whole begins."""
    tokenizer = vocabulary("bytes")
    first, second = tokenizer("é")["input_ids"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <half>", special_tokens=[("<half>", first)]
    )
    assert decode_completion(tokenizer, "a", [second]) == tokenizer.decode([second])


def test_published_pieces_keep_their_blanks() -> None:
    """The tokenizer of stories260K (Llama's form), where REAL_DATA names a folder that holds it."""
    folder = Path(os.environ.get("REAL_DATA", "")) / "models" / "stories260K"
    if not (folder / "tokenizer_config.json").is_file():
        pytest.skip("REAL_DATA=<folder with models/stories260K> is not set")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, completion in (
        ("Once upon a time", " there was a cat"),
        ("TL;DR:", " My dog ate it"),
        ("a", "!"),
    ):
        found = encode_completion(tokenizer, prompt, completion, finished=False)
        assert decode_completion(tokenizer, prompt, found) == completion
