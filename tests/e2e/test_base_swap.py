"""Another base is another folder: four architectures, tokenizers with and without what RLHF needs, and LoRA."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import processors
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from rlhf_pipeline.tokenization import PAD_TOKEN, PLAIN_TEMPLATE
from tests.e2e.conftest import LATER, Trained
from tests.e2e.pipeline import Pipeline
from tests.tiny import ARCHITECTURES, CHAT_TEMPLATE, make_causal, make_tokenizer

pytestmark = pytest.mark.e2e


@pytest.fixture
def pipeline(tmp_path: Path, rows: Path) -> Pipeline:
    """A store of its own, still empty."""
    return Pipeline(tmp_path / "artifacts", rows)


def base(pipeline: Pipeline, tokenizer: PreTrainedTokenizerFast) -> str:
    """The folder of a GPT-2 with this tokenizer."""
    folder = pipeline.root.parent / "base"
    make_causal("gpt2", folder, tokenizer=tokenizer)
    return str(folder)


def folder(pipeline: Pipeline, role: str) -> Path:
    return pipeline.store.path(pipeline.refs()[role])


def tokenizer_of(pipeline: Pipeline, role: str) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(folder(pipeline, role))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_stage_takes_every_architecture(trained: Trained, architecture: str) -> None:
    pipeline = trained(architecture)
    assert set(pipeline.refs()) == {"base", "sft", "reward", "policy", "critic"}
    assert {AutoConfig.from_pretrained(folder(pipeline, role)).model_type for role in pipeline.refs()} == {architecture}
    assert pipeline.damage() == []


@pytest.mark.parametrize(
    ("first", "pad_before", "pad_after"),
    [
        (("<eos>",), "<eos>", PAD_TOKEN),  # pad == EOS, as GPT-2 comes
        (("<eos>",), None, PAD_TOKEN),
        (("<eos>", "<|padding|>"), None, "<|padding|>"),  # a spare token, as GPT-NeoX has
    ],
)
def test_pad_becomes_a_token_of_its_own(
    pipeline: Pipeline, first: tuple[str, ...], pad_before: str | None, pad_after: str
) -> None:
    tokenizer = make_tokenizer(first, pad_token=pad_before)
    pipeline.make("sft", "--base", base(pipeline, tokenizer))
    for stage in LATER:
        pipeline.make(stage)
    for role in set(pipeline.refs()) - {"base", "critic"}:
        saved, config = tokenizer_of(pipeline, role), AutoConfig.from_pretrained(folder(pipeline, role))
        assert (saved.pad_token, saved.eos_token) == (pad_after, "<eos>"), role
        assert config.pad_token_id == saved.pad_token_id != config.eos_token_id, role
        assert config.vocab_size == max(len(tokenizer), saved.pad_token_id + 1), role


def test_without_eos_a_token_has_to_be_named(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    named = base(pipeline, make_tokenizer(("<pad>", "<end>"), eos_token=None))
    assert pipeline.stage("sft", "--base", named) == 2
    assert "no EOS token" in (error := capsys.readouterr().err) and "`--eos_token`" in error
    assert pipeline.stage("sft", "--base", named, "--eos_token", "<stop>") == 2
    assert "no token '<stop>'" in capsys.readouterr().err
    assert not pipeline.root.exists()

    pipeline.make("sft", "--base", named, "--eos_token", "<end>")
    for stage in LATER:
        pipeline.make(stage)  # the token is saved with the model: named once is enough
    for role in set(pipeline.refs()) - {"base", "critic"}:
        assert tokenizer_of(pipeline, role).eos_token == "<end>"
        assert AutoConfig.from_pretrained(folder(pipeline, role)).eos_token_id == 1


def test_eos_after_every_text_is_refused(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    assert pipeline.stage("sft", "--base", base(pipeline, tokenizer)) == 2
    assert "writes EOS after every text" in capsys.readouterr().err
    assert not pipeline.root.exists()


def test_messages_without_a_chat_template_get_the_plain_one(pipeline: Pipeline) -> None:
    pipeline.make("sft", "--base", base(pipeline, make_tokenizer()), rows="messages")
    pipeline.make("reward")
    saved = tokenizer_of(pipeline, "sft")
    assert saved.chat_template == PLAIN_TEMPLATE
    text = saved.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False)
    assert text == "User: Hi\nAssistant:"
    pipeline.make("ppo", rows="chat-prompts")
    assert tokenizer_of(pipeline, "policy").chat_template == PLAIN_TEMPLATE


def test_the_chat_template_of_a_base_is_kept(pipeline: Pipeline) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    pipeline.make("sft", "--base", base(pipeline, tokenizer), rows="messages")
    assert tokenizer_of(pipeline, "sft").chat_template == CHAT_TEMPLATE


def test_lora_leaves_the_embeddings_alone(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """A pad that would have to be added is refused, since an adapter does not carry embeddings."""
    named = base(pipeline, make_tokenizer(("<eos>",), pad_token="<eos>"))
    assert pipeline.stage("sft", "--base", named, "--use_peft", "true") == 2
    assert "neither LoRA nor PPO may grow the embeddings" in capsys.readouterr().err
    assert not pipeline.root.exists()


def adapter_of(pipeline: Pipeline, role: str) -> dict[str, Any]:
    """The adapter's configuration; there must be no full model beside it."""
    assert not list(folder(pipeline, role).glob("model*")), role
    config: dict[str, Any] = json.loads((folder(pipeline, role) / "adapter_config.json").read_text())
    return config


def test_lora_adapts_every_stage(adapted: Pipeline) -> None:
    refs = adapted.refs()
    roles = ("sft", "reward", "policy", "critic")
    below = {role: adapter_of(adapted, role)["base_model_name_or_path"] for role in roles}
    assert below == {"sft": refs["base"], **dict.fromkeys(roles[1:], refs["sft-merged"])}
    assert adapted.damage() == []


def test_a_reward_model_goes_on_with_an_adapter(adapted: Pipeline) -> None:
    """Over the SFT model's own base, so that PPO can share that with it."""
    unmerged = dataclasses.replace(adapted, run="unmerged")
    unmerged.make("reward", "--model", "default/sft")
    config = adapter_of(unmerged, "reward")
    assert config["base_model_name_or_path"] == adapted.refs()["base"]
    assert config["task_type"] == "SEQ_CLS"
    assert unmerged.damage() == []


def test_ppo_goes_on_with_an_adapter(adapted: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """The SFT adapter is trained on, over the same base; the reference is a frozen copy of it."""
    further = dataclasses.replace(adapted, run="further")
    models = ("--model", "default/sft", "--reward", "default/reward", "--max_steps", "3")
    assert further.stage("ppo", *models, "--use_peft", "true") == 2
    assert "is a LoRA adapter, and the stage goes on with it" in capsys.readouterr().err
    further.make("ppo", *models)
    assert adapter_of(further, "policy")["base_model_name_or_path"] == adapted.refs()["base"]
    kl = [line["ppo/kl_nats"] for line in further.metrics("ppo") if "ppo/kl_nats" in line]
    assert kl[0] == 0 != kl[-1]
    before = load_file(folder(adapted, "sft") / "adapter_model.safetensors")
    after = load_file(folder(further, "policy") / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
