"""Checkpoints are loaded whole or refused: labels, architectures, missing weights, pickles, adapters."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, CLIPTextConfig, GPT2Config
from trl import ModelConfig

from rlhf_pipeline.artifacts import Store, import_folder
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.models import (
    adapter_base_name,
    check_causal,
    check_classifier,
    check_scorer,
    load_causal,
    load_classifier,
    load_config,
    load_tokenizer,
    loading_options,
)
from tests.tiny import llama_config, make_classifier, make_llama, make_tokenizer

IDS = torch.tensor([[66, 67, 1]])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_llama(tmp_path / "model")
    return tmp_path / "model"


def at(folder: Path) -> Checkpoint:
    return Checkpoint("", str(folder), folder=folder)


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of a config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_causal_model_is_the_one_that_was_saved(store: Store, folder: Path) -> None:
    with torch.no_grad():
        assert torch.equal(load_causal(store, at(folder))(IDS).logits, make_llama()(IDS).logits)


def test_reward_model_is_the_one_that_was_saved(store: Store, tmp_path: Path) -> None:
    saved = make_classifier(tmp_path / "judge", seed=3)
    with torch.no_grad():
        assert torch.equal(load_classifier(store, at(tmp_path / "judge"))(IDS).logits, saved(IDS).logits)


def test_fresh_head_hangs_on_the_seed_alone(store: Store, folder: Path) -> None:
    """Not on the random numbers that loading draws, which differ under other launchers."""
    heads = []
    for drawn, seed in ((0, 1), (5, 1), (0, 2)):
        torch.manual_seed(seed)
        torch.rand(drawn)
        heads.append(load_classifier(store, at(folder)).score.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_fresh_head_has_the_scale_of_stiennon_et_al(store: Store, tmp_path: Path) -> None:
    """N(0, 1 / (d + 1)): the standard deviation of 1024 draws is within 10 % of 1 / sqrt(1025)."""
    make_llama(tmp_path / "wide", hidden_size=1024)
    model = load_classifier(store, at(tmp_path / "wide"))
    assert model.num_labels == 1 and model.score.weight.shape == (1, 1024)
    assert model.score.weight.detach().std().item() == pytest.approx(1025**-0.5, rel=0.1)
    body = load_file(tmp_path / "wide" / "model.safetensors")
    assert torch.equal(model.state_dict()["model.norm.weight"], body["model.norm.weight"])


@pytest.mark.parametrize("labels", [2, 5])
def test_several_labels_are_refused(store: Store, tmp_path: Path, labels: int) -> None:
    make_classifier(tmp_path / "judge", num_labels=labels)
    with pytest.raises(ModelError, match=f"gives {labels} labels, and a reward is one number; name a sequence class"):
        load_classifier(store, at(tmp_path / "judge"))


def test_who_may_be_causal() -> None:
    for name in ("LlamaForCausalLM", "GPT2LMHeadModel", "Gemma3ForConditionalGeneration"):
        check_causal(llama_config(architectures=[name]), "x")
    check_causal(llama_config(architectures=None), "x")
    for name in ("BertModel", "BertForMaskedLM", "LlamaForSequenceClassification"):
        with pytest.raises(ModelError, match=f"x: holds {name}, which is no causal language model"):
            check_causal(llama_config(architectures=[name]), "x")


def test_who_may_score() -> None:
    check_classifier(GPT2Config(architectures=["GPT2LMHeadModel"]), "x")
    check_classifier(BertConfig(architectures=["BertForSequenceClassification"], num_labels=1), "x")
    with pytest.raises(ModelError, match="no sequence-classification class for `clip_text_model`.*--model"):
        check_classifier(CLIPTextConfig(), "x")
    with pytest.raises(ModelError, match="x: holds BertModel, which is no causal language model"):
        check_classifier(BertConfig(architectures=["BertModel"]), "x")


def test_encoder_is_no_base(store: Store, tmp_path: Path) -> None:
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=258, **size)).save_pretrained(tmp_path / "encoder")
    for load in (load_causal, load_classifier):
        with pytest.raises(ModelError, match="holds BertModel"):
            load(store, at(tmp_path / "encoder"))


def test_weights_that_are_missing(store: Store, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"1 weights are missing \(model.norm.weight first\), so it would run on random"
    ):
        load_causal(store, at(folder))


def test_weights_of_another_size(store: Store, folder: Path) -> None:
    edit(folder, hidden_size=32)
    with pytest.raises(ModelError, match="cannot be loaded: ") as caught:
        load_causal(store, at(folder))
    assert "\n" not in str(caught.value)


def test_pickles_are_never_opened(store: Store, folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded: .*safetensors"):
        load_causal(store, at(folder))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "cannot be used"),
        ('{"model_type": "from-2031"}', "cannot be used .*from-2031"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "cannot be used .*hidden_size"),
        ('{"model_type": "llama", "hidden_size": 10, "num_attention_heads": 4}', "cannot be used .*hidden size"),
    ],
)
def test_config_that_cannot_be_read(folder: Path, config: str, why: str) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(ModelError, match=why) as caught:
        load_config(at(folder))
    assert "\n" not in str(caught.value)


def test_code_of_strangers_does_not_run(folder: Path) -> None:
    """A config that brings its own class is refused, and its file not imported."""
    (folder / "strange.py").write_text("raise SystemExit('it ran')")
    edit(folder, model_type="strange", auto_map={"AutoConfig": "strange.StrangeConfig"})
    with pytest.raises(ModelError):
        load_config(at(folder))


def test_tokenizer_beside_the_model(folder: Path) -> None:
    assert load_tokenizer(at(folder)).get_vocab() == make_tokenizer().get_vocab()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="no usable tokenizer beside the model .*tokenizer.save_pretrained"):
        load_tokenizer(at(folder))


def test_options_of_model_config() -> None:
    assert loading_options(ModelConfig(dtype="bfloat16", attn_implementation="eager")) == {
        "dtype": torch.bfloat16,
        "trust_remote_code": False,
        "attn_implementation": "eager",
    }
    assert loading_options(ModelConfig(dtype="auto"), trust_remote_code=True) == {
        "dtype": "auto",
        "trust_remote_code": True,
    }
    assert loading_options(ModelConfig(load_in_4bit=True))["quantization_config"].load_in_4bit


def adapter(store: Store, folder: Path, tmp_path: Path) -> Checkpoint:
    """A LoRA adapter, not zero, over an object of the store."""
    base = import_folder(store, folder)
    torch.manual_seed(5)
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, init_lora_weights=False, target_modules=["q_proj"])
    model = get_peft_model(load_causal(store, find_checkpoint(store, base, "default")), config)
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    return at(tmp_path / "adapter")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.19 asks for it
def test_adapter_stands_on_its_base(store: Store, folder: Path, tmp_path: Path) -> None:
    over = adapter(store, folder, tmp_path)
    assert adapter_base_name(over.location) == import_folder(store, folder)
    frozen, trainable = load_causal(store, over), load_causal(store, over, trainable=True)
    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert {name for name, weight in trainable.named_parameters() if weight.requires_grad} == {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.default.weight"
        for layer in (0, 1)
        for side in "AB"
    }
    with torch.no_grad():
        assert not torch.allclose(frozen(IDS).logits, make_llama()(IDS).logits)


def test_who_scores_already(store: Store, folder: Path, tmp_path: Path) -> None:
    make_classifier(tmp_path / "judge")
    check_scorer(at(tmp_path / "judge"))
    with pytest.raises(ModelError, match="holds LlamaForCausalLM, which gives no score; train a reward model with"):
        check_scorer(at(folder))
    (tmp_path / "adapter").mkdir()
    for task, scores in (("SEQ_CLS", True), ("CAUSAL_LM", False)):
        text = json.dumps({"base_model_name_or_path": "base", "task_type": task})
        (tmp_path / "adapter" / "adapter_config.json").write_text(text)
        with nullcontext() if scores else pytest.raises(ModelError, match="holds an adapter for CAUSAL_LM, which"):
            check_scorer(at(tmp_path / "adapter"))


def test_full_model_adapts_nothing(folder: Path) -> None:
    assert adapter_base_name(str(folder)) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_adapter_that_names_no_base(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match="names no base model; save the adapter again"):
        adapter_base_name(str(tmp_path))
