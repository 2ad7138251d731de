"""The table of rules for tokenizers, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.tokenization import PAD_TOKEN, PLAIN_TEMPLATE, make_fit, match_embeddings
from tests.tiny import make_llama, make_tokenizer


def test_tokenizer_that_fits_is_left_alone() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "own"
    make_fit(tokenizer, may_grow=False)
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.chat_template) == ("<pad>", "<eos>", "own")
    assert len(tokenizer) == 258 and tokenizer.padding_side == "right"


def test_no_eos_is_refused_until_one_is_named() -> None:
    with pytest.raises(ModelError, match="no EOS token, so no completion could end; .*`--eos_token`"):
        make_fit(make_tokenizer(eos_token=None))
    tokenizer = make_tokenizer(eos_token=None)
    make_fit(tokenizer, eos_token="<eos>")
    assert tokenizer.eos_token_id == 1
    with pytest.raises(ModelError, match="eos_token: the tokenizer has no token '<end>'"):
        make_fit(make_tokenizer(), eos_token="<end>")


def test_eos_after_every_text_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A $B <eos>", special_tokens=[("<eos>", 1)]
    )
    with pytest.raises(ModelError, match="writes EOS after every text.*add_eos_token"):
        make_fit(tokenizer)


@pytest.mark.parametrize("pad", [None, "<eos>"])
def test_spare_token_becomes_the_pad(pad: str | None) -> None:
    tokenizer = make_tokenizer(pad_token=pad)  # <pad> is in its vocabulary, id 0, without that office
    make_fit(tokenizer, may_grow=False)
    assert (tokenizer.pad_token, tokenizer.pad_token_id, len(tokenizer)) == ("<pad>", 0, 258)


def test_unk_is_spare_unless_it_ends_texts() -> None:
    tokenizer = make_tokenizer(("<unk>", "<eos>"), pad_token=None, unk_token="<unk>")
    make_fit(tokenizer, may_grow=False)
    assert tokenizer.pad_token == "<unk>"
    gpt2 = make_tokenizer(("<x>", "<eos>"), pad_token=None, unk_token="<eos>", bos_token="<eos>")
    with pytest.raises(ModelError, match="no pad token apart from EOS, and neither LoRA nor PPO may grow"):
        make_fit(gpt2, may_grow=False)


@pytest.mark.parametrize("pad", [None, "<eos>"])
def test_pad_is_added_where_nothing_is_spare(pad: str | None) -> None:
    tokenizer = make_tokenizer(("<x>", "<eos>"), pad_token=pad)
    make_fit(tokenizer)
    assert (tokenizer.pad_token, tokenizer.pad_token_id, len(tokenizer)) == (PAD_TOKEN, 258, 259)
    assert tokenizer.eos_token_id == 1


def test_added_pad_survives_saving(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(("<x>", "<eos>"), pad_token=None)
    make_fit(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    saved = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert (saved.pad_token_id, saved.eos_token_id, saved.chat_template) == (258, 1, PLAIN_TEMPLATE)


def test_template_of_a_file(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    (tmp_path / "mine.jinja").write_text("{{ messages[0]['content'] }}é", encoding="utf-8")
    make_fit(tokenizer, chat_template=str(tmp_path / "mine.jinja"))
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}é"
    for name in ("absent.jinja", "."):
        with pytest.raises(ModelError, match="chat_template_path: .* cannot be read; name a Jinja file"):
            make_fit(make_tokenizer(), chat_template=str(tmp_path / name))


def test_plain_template_by_hand() -> None:
    tokenizer = make_tokenizer()
    make_fit(tokenizer)
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": " Hello "},
        {"role": "user", "content": "Bye"},
    ]
    shown = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert shown == "Be kind.\nUser: Hi\nAssistant: Hello<eos>\nUser: Bye\nAssistant:"


def test_embeddings_grow_by_the_added_token_and_keep_the_others() -> None:
    model, tokenizer = make_llama(), make_tokenizer(("<x>", "<eos>"), pad_token=None)
    before = model.get_input_embeddings().weight.detach().clone()
    make_fit(tokenizer)
    match_embeddings(model, tokenizer)
    after = model.get_input_embeddings().weight.detach()
    assert after.shape == (259, 16) and torch.equal(after[:258], before)
    assert torch.allclose(after[258], before.mean(0), atol=1e-3)
    assert (model.config.pad_token_id, model.generation_config.pad_token_id) == (258, 258)


def test_embeddings_with_rows_to_spare_stay() -> None:
    model = make_llama(vocab_size=300)
    match_embeddings(model, make_tokenizer())
    assert model.get_input_embeddings().weight.shape == (300, 16)


@pytest.mark.parametrize(("declared", "stops"), [(None, 1), (1, 1), (7, [1, 7]), ([7, 1, 9], [1, 7, 9])])
def test_stop_ids_of_the_checkpoint_stay(declared: int | list[int] | None, stops: int | list[int]) -> None:
    model = make_llama()
    model.generation_config.eos_token_id = declared
    match_embeddings(model, make_tokenizer())
    assert model.generation_config.eos_token_id == stops
    assert (model.config.eos_token_id, model.config.pad_token_id) == (1, 0)
