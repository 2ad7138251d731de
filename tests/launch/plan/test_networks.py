"""Parameters are counted exactly: against real models, peft, and published sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_pipeline.errors import ConfigError, ModelError
from rlhf_pipeline.launch.plan.networks import Network, adapter, describe, read_network
from rlhf_pipeline.ppo.adapters import old_names
from rlhf_pipeline.ppo.critic import Critic
from tests.launch.plan.shapes import LLAMA_2_7B, opt_config
from tests.tiny import ARCHITECTURES, make_causal


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_of_a_real_model_is_counted(architecture: str, tmp_path: Path) -> None:
    model = make_causal(architecture, tmp_path)
    network = read_network(str(tmp_path))
    assert network.parameters == tuple(p.numel() for p in model.parameters())
    assert network == describe(model, tmp_path.name)
    assert (network.layers, network.width, network.attention) == (2, 16, 16)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reward_model_and_critic_are_the_backbone_and_one_output(architecture: str, tmp_path: Path) -> None:
    make_causal(architecture, tmp_path)
    network = read_network(str(tmp_path), scalar=True)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    assert network.parameters == tuple(p.numel() for p in classifier.parameters())
    assert network.count == sum(p.numel() for p in Critic.from_policy(tmp_path).parameters())
    assert network.vocabulary == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_are_those_of_peft(architecture: str, tmp_path: Path) -> None:
    make_causal(architecture, tmp_path)
    transposed = architecture == "gpt2"
    lora = LoraConfig(r=3, target_modules="all-linear", task_type=TaskType.CAUSAL_LM, fan_in_fan_out=transposed)
    with old_names():
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path), lora)
    trained = sorted(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert sorted(adapter(read_network(str(tmp_path)), 3)) == trained


def test_adapters_of_some_layers(tmp_path: Path) -> None:
    make_causal("llama", tmp_path)
    network = read_network(str(tmp_path))
    assert adapter(network, 4, ["q_proj", "down_proj"]) == (4 * 16, 4 * 16, 4 * 32, 4 * 16) * 2
    with pytest.raises(ConfigError, match="no linear layer `query`; it has down_proj, gate_proj"):
        adapter(network, 4, ["query"])


def test_llama_2_7b_has_the_published_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_2_7B))
    network = read_network(str(tmp_path / "config.json"))
    assert network.count == 6_738_415_616
    assert (network.inner, network.keys, network.entries) == (11008, 4096, 5)


@pytest.mark.parametrize("name", ["opt-13b", "opt-66b", "opt-175b"])
def test_opt_by_hand(name: str, tmp_path: Path) -> None:
    """12 h^2 + 13 h a block, tokens and positions (two more than 2048), the last norm; the head is tied."""
    network = read_network(opt_config(tmp_path, name))
    h = network.width
    assert network.count == network.layers * (12 * h**2 + 13 * h) + (50272 + 2050) * h + 2 * h
    assert network.count == pytest.approx(float(name.removeprefix("opt-")[:-1]) * 1e9, rel=0.02)
    assert network.name == name


MLP = {"llama": (32, 4), "qwen3": (32, 4), "gpt2": (64, 2), "gpt_neox": (32, 2)}


@pytest.mark.parametrize("architecture", MLP)
def test_what_activations_follow_from(architecture: str, tmp_path: Path) -> None:
    make_causal(architecture, tmp_path)
    network: Network = read_network(str(tmp_path))
    assert (network.inner, network.inner_kept) == MLP[architecture]
    assert network.rms == (architecture in ("llama", "qwen3"))
    assert network.entries == (5 if network.rms else 2)  # q, k, v, gate, up; or all in one, and one


@pytest.mark.parametrize(
    "content", ["{", "[1]", '"x"', '{"model_type": "no-such-architecture"}', '{"model_type": 5}', "{}"]
)
def test_a_config_that_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match="no usable config.json"):
        read_network(str(tmp_path))


def test_a_config_of_another_kind_of_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ModelError, match="cannot be built"):
        read_network(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 0}, "a size in its config.json is 0, such as `num_attention_heads`"),
        ({"model_type": "gpt2", "num_attention_heads": 0}, "`num_attention_heads` is 0; write a whole number"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` is 0"),
        ({"num_hidden_layers": -1}, "`num_hidden_layers` is -1"),
        ({"hidden_size": 0}, "`hidden_size` is 0"),
        ({"vocab_size": -1}, "`vocab_size` is -1"),
        ({"intermediate_size": -1}, "cannot be built: .*negative"),
        ({"head_dim": -1}, "cannot be built: "),
        ({"hidden_act": "none-such"}, "cannot be built: "),
        ({"num_attention_heads": None, "model_type": "mamba"}, "a mamba has no `num_attention_heads`"),
        ({"num_attention_heads": None, "model_type": "rwkv"}, "a rwkv has no `num_attention_heads`"),
    ],
)
@pytest.mark.parametrize("scalar", [False, True])
def test_values_that_make_no_network(changes: dict[str, Any], message: str, scalar: bool, tmp_path: Path) -> None:
    config = {name: value for name, value in {**LLAMA_2_7B, **changes}.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message) as caught:
        read_network(str(tmp_path), scalar=scalar)
    assert "\n" not in str(caught.value)
