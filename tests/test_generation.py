"""Sampling is exact, independent of batching and padding, and agrees with transformers' own generate and forward."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

from rlhf_pipeline.decoding import stop_ids
from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.generation import logprobs, sample
from tests.tiny import CHAT_TEMPLATE, make_llama, make_tokenizer
from tests.vocabularies import vocabulary, written

PROMPTS = ["a", "what is this?", "hello there", "b c"]


@pytest.fixture(scope="module")
def llama():
    return make_llama()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def _ids(completions):
    return [[one.token_ids for one in row] for row in completions]


def test_greedy_is_what_generate_gives(llama, tokenizer):
    ours = sample(llama, tokenizer, PROMPTS, temperature=0, max_new_tokens=12, seed=0)
    for prompt, [completion] in zip(PROMPTS, ours, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")
        theirs = llama.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
        assert completion.token_ids == theirs.tolist()


@pytest.mark.parametrize("batch_size", [1, 3, 8, 256])
def test_batch_size_changes_nothing(llama, tokenizer, batch_size):
    settings = {"temperature": 1.0, "max_new_tokens": 10, "seed": 7, "num_return_sequences": 3}
    whole = sample(llama, tokenizer, PROMPTS, **settings)
    assert _ids(sample(llama, tokenizer, PROMPTS, **settings, batch_size=batch_size)) == _ids(whole)
    assert [len(row) for row in whole] == [3] * 4


def test_seeds_and_samples_differ(llama, tokenizer):
    settings = {"temperature": 1.0, "max_new_tokens": 10, "num_return_sequences": 2}
    first = _ids(sample(llama, tokenizer, PROMPTS, seed=1, **settings))
    second = _ids(sample(llama, tokenizer, PROMPTS, seed=2, **settings))
    assert first != second
    assert all(row[0] != row[1] for row in first)


def test_finished_rows_end_with_their_stop_and_others_are_cut(tokenizer):
    model = make_llama()
    model.generation_config.eos_token_id = [1, *range(180, 258)]  # many bytes end a completion
    rows = sample(model, tokenizer, PROMPTS * 5, temperature=1, max_new_tokens=3, seed=0)
    completions = [completion for row in rows for completion in row]
    stops = stop_ids(model, tokenizer)
    assert {c.finished for c in completions} == {True, False}
    for completion in completions:
        *before, last = completion.token_ids
        assert completion.finished == (last in stops)
        assert not set(before) & set(stops)
        assert completion.finished or len(completion.token_ids) == 3
        assert completion.text == tokenizer.decode(before if completion.finished else completion.token_ids)


def test_stop_ids_join_tokenizer_and_checkpoint(tokenizer):
    model = make_llama()
    assert stop_ids(model, tokenizer) == [1]
    model.generation_config.eos_token_id = 9
    assert stop_ids(model, tokenizer) == [1, 9]
    model.generation_config.eos_token_id = None
    assert stop_ids(model, tokenizer) == [1]


def test_a_checkpoints_own_sampling_settings_are_left_aside(tokenizer):
    model = make_llama()
    before = sample(model, tokenizer, PROMPTS, temperature=1, max_new_tokens=8, seed=3)
    model.generation_config.update(repetition_penalty=5.0, top_k=1, do_sample=True)
    assert sample(model, tokenizer, PROMPTS, temperature=1, max_new_tokens=8, seed=3) == before


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_an_unpadded_forward(llama, tokenizer, temperature):
    prompt_ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    completion_ids = [[5, 6, 7], [8], [9, 10, 11, 12, 1], [20, 1]]
    ours = logprobs(llama, tokenizer, prompt_ids, completion_ids, temperature, batch_size=3)
    for prompt, completion, found in zip(prompt_ids, completion_ids, ours, strict=True):
        with torch.no_grad():
            logits = llama(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / temperature).log_softmax(-1)[range(len(completion)), completion]
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_training_mode_is_restored_and_dropout_off(tokenizer):
    model = make_llama(attention_dropout=0.5).train()
    first = sample(model, tokenizer, PROMPTS, temperature=0, max_new_tokens=6, seed=0)
    assert sample(model, tokenizer, PROMPTS, temperature=0, max_new_tokens=6, seed=0) == first
    assert model.training


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21 reads it
def test_lora_models_sample_through_their_adapter(tokenizer):
    plain = sample(make_llama(), tokenizer, PROMPTS, temperature=0, max_new_tokens=8, seed=0)
    adapted = get_peft_model(make_llama(), LoraConfig(init_lora_weights=True, target_modules=["q_proj", "v_proj"]))
    assert sample(adapted, tokenizer, PROMPTS, temperature=0, max_new_tokens=8, seed=0) == plain
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=3.0)
    assert sample(adapted, tokenizer, PROMPTS, temperature=0, max_new_tokens=8, seed=0) != plain


def test_models_without_position_ids_read_the_mask(tokenizer):
    torch.manual_seed(0)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=258, hidden_size=16, n_layer=2, n_head=2, eos_token_id=1))
    together = sample(bloom, tokenizer, PROMPTS, temperature=0, max_new_tokens=6, seed=0)
    alone = [sample(bloom, tokenizer, [prompt], temperature=0, max_new_tokens=6, seed=0)[0] for prompt in PROMPTS]
    assert together == alone


def test_messages_are_rendered_by_the_template(llama):
    tokenizer = make_tokenizer(chat_template=CHAT_TEMPLATE)
    [[chat]] = sample(llama, tokenizer, [[{"role": "user", "content": "hi"}]], temperature=0, max_new_tokens=5, seed=0)
    [[plain]] = sample(llama, tokenizer, ["<user>hi<assistant>"], temperature=0, max_new_tokens=5, seed=0)
    assert chat == plain


def test_what_cannot_be_sampled_is_refused(llama, tokenizer):
    settings = {"temperature": 1.0, "seed": 0}
    with pytest.raises(ModelError, match="128 positions"):
        sample(llama, tokenizer, ["x" * 120], max_new_tokens=9, **settings)
    with pytest.raises(ModelError, match="no token"):
        sample(llama, tokenizer, [""], max_new_tokens=9, **settings)
    mamba = MambaForCausalLM(MambaConfig(vocab_size=258, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(ModelError, match="MambaForCausalLM has no key/value cache"):
        sample(mamba, tokenizer, ["a"], max_new_tokens=2, **settings)
    broken = make_llama()
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        sample(broken, tokenizer, ["a"], max_new_tokens=2, **settings)


def test_a_sampled_text_goes_on_after_its_prompt() -> None:
    """Also where the tokenizer drops the blank that ids alone begin with."""
    pieces = vocabulary("pieces")
    model = make_llama(vocab_size=len(pieces))
    rows = sample(model, pieces, ["say some", "the cat"] * 20, temperature=1, max_new_tokens=4, seed=0)
    completions = [one for row in rows for one in row]
    for one in completions:
        assert one.text == written("pieces", pieces, one.token_ids[:-1] if one.finished else one.token_ids)
    assert any(one.text.startswith(" ") for one in completions)
