"""Merging LoRA adapters: the full model computes what base and adapter computed, and needs neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_pipeline.artifacts import Store, import_folder
from rlhf_pipeline.artifacts import merge as merge_module
from rlhf_pipeline.artifacts.collect import with_ancestors
from rlhf_pipeline.artifacts.merge import merge
from rlhf_pipeline.artifacts.verify import verify
from rlhf_pipeline.errors import ArtifactError, ModelError
from tests.artifacts.conftest import Publish
from tests.tiny import make_llama, make_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft, in our own hands
IDS = torch.tensor([[5, 6, 7, 8]])
Train = Callable[..., str]


@pytest.fixture
def base(store: Store, tmp_path: Path) -> str:
    make_llama(tmp_path / "llama")
    return import_folder(store, tmp_path / "llama")


@pytest.fixture
def train(store: Store) -> Train:
    """Publish an adapter of random (not zero) matrices over `base`, and return its id."""

    def publish_adapter(model: torch.nn.Module, base: str, kind: str, task: str, config: object = None) -> str:
        torch.manual_seed(1)
        settings = LoraConfig(task_type=task, r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        adapted = get_peft_model(model, settings)
        with store.staging() as staged:
            adapted.save_pretrained(staged)
            (staged / "README.md").unlink(missing_ok=True)
            path = staged / "adapter_config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
            if config is not None:
                config.save_pretrained(staged)
            return store.publish(
                staged, kind=kind, parents={"base": base}, input_key=kind, config={}, data={}, metrics={"loss": 1.5}
            )

    return publish_adapter


def causal(store: Store, name: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(store.path(name))


def test_a_policy(store: Store, base: str, train: Train) -> None:
    adapter = train(causal(store, base), base, "sft", "CAUSAL_LM")
    merged = merge(store, adapter, "default", "sft-merged")
    with torch.no_grad():
        expected = PeftModel.from_pretrained(causal(store, base), store.path(adapter))(IDS).logits
        torch.testing.assert_close(causal(store, merged)(IDS).logits, expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(causal(store, base)(IDS).logits, expected, atol=1e-3)
    tokenizer = AutoTokenizer.from_pretrained(store.path(merged))
    assert tokenizer("abc").input_ids == make_tokenizer()("abc").input_ids
    manifest = store.manifest(merged)
    assert (manifest.kind, manifest.parents, manifest.metrics) == ("sft", {"adapter": adapter}, {"loss": 1.5})
    assert manifest.tokenizer == store.manifest(base).tokenizer
    assert store.resolve("sft-merged") == merged
    assert with_ancestors(store, [merged]) == {merged, adapter, base}
    assert verify(store) == []


def test_twice_is_once(store: Store, base: str, train: Train) -> None:
    adapter = train(causal(store, base), base, "sft", "CAUSAL_LM")
    assert merge(store, adapter, "default", "one") == merge(store, adapter, "default", "two")
    assert len(store.ids()) == 3


def test_a_reward_model_keeps_its_head_and_its_own_configuration(store: Store, base: str, train: Train) -> None:
    torch.manual_seed(2)
    model = AutoModelForSequenceClassification.from_pretrained(store.path(base), num_labels=1).eval()
    config = AutoConfig.from_pretrained(store.path(base), num_labels=1)
    config.reward_offset = 0.25
    adapter = train(model, base, "reward", "SEQ_CLS", config)
    with torch.no_grad():
        expected = model(IDS).logits  # the adapter has been put into it
    merged = merge(store, adapter, "default", "reward-merged")
    loaded = AutoModelForSequenceClassification.from_pretrained(store.path(merged))
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, expected, rtol=1e-5, atol=1e-6)
    assert loaded.config.reward_offset == 0.25
    assert loaded.config.num_labels == 1


def test_an_adapter_over_an_adapter(store: Store, base: str, train: Train) -> None:
    sft = train(causal(store, base), base, "sft", "CAUSAL_LM")
    first = PeftModel.from_pretrained(causal(store, base), store.path(sft)).merge_and_unload()
    policy = train(first, sft, "policy", "CAUSAL_LM")
    with torch.no_grad():
        expected = first(IDS).logits
    merged = merge(store, policy, "default", "policy-merged")
    with torch.no_grad():
        torch.testing.assert_close(causal(store, merged)(IDS).logits, expected, rtol=1e-5, atol=1e-6)


def test_a_full_model_is_refused(store: Store, base: str) -> None:
    with pytest.raises(ArtifactError, match=f"{base} is no LoRA adapter: it is a full model already"):
        merge(store, base, "default", "x")


def test_a_lost_base_is_named(store: Store, base: str, train: Train) -> None:
    adapter = train(causal(store, base), base, "sft", "CAUSAL_LM")
    store.path(base).rename(store.root / "lost")
    with pytest.raises(ArtifactError, match=f"{base} is gone"):
        merge(store, adapter, "default", "x")
    assert store.ids() == [adapter]


def test_another_task_is_refused(store: Store, base: str) -> None:
    settings = {"base_model_name_or_path": base, "task_type": "TOKEN_CLS"}
    with store.staging() as staged:
        (staged / "adapter_config.json").write_text(json.dumps(settings))
        name = store.publish(staged, kind="sft", parents={"base": base}, input_key="k", config={}, data={}, metrics={})
    with pytest.raises(ArtifactError, match="task_type 'TOKEN_CLS'; merge knows CAUSAL_LM and SEQ_CLS"):
        merge(store, name, "default", "x")


def test_a_base_that_cannot_be_loaded_is_named(
    store: Store, base: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("We couldn't connect to the hub.\nCheckout the documentation.")

    adapter = train(causal(store, base), base, "sft", "CAUSAL_LM")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=r"cannot be loaded \(We couldn't connect to the hub.\); go online once"):
        merge(store, adapter, "default", "x")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"base_model_name_or_path": "owner/name", "revision": "0123"}, ("owner/name", "0123")),
        ({"base_model_name_or_path": "hub:owner/name@4567", "revision": None}, ("owner/name", "4567")),
        ({"base_model_name_or_path": "owner/name"}, ("owner/name", None)),
    ],
)
def test_a_base_on_the_hub(
    store: Store, tmp_path: Path, settings: dict[str, str | None], expected: tuple[str, str | None]
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert merge_module._base_location(store, tmp_path) == expected


def test_the_adapters_own_tokenizer_comes_first(store: Store, base: str, tmp_path: Path, publish: Publish) -> None:
    (tmp_path / "staged").mkdir()
    adapter = tmp_path / "adapter"
    make_tokenizer(eos_token="<pad>").save_pretrained(adapter)
    merge_module._copy_tokenizer(store, adapter, tmp_path / "staged")
    for path in adapter.iterdir():
        assert (tmp_path / "staged" / path.name).read_bytes() == path.read_bytes()
