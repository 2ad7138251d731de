"""Policy, reference, critic and reward model over one frozen base: alike in numbers, small in memory, plain on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_pipeline.errors import ConfigError, ModelError
from rlhf_pipeline.ppo.packing import pack
from rlhf_pipeline.ppo.seams import joined
from rlhf_pipeline.ppo.shared import HEAD_KEY, SharedCritic, SharedReward, fresh_adapter, read_adapter
from rlhf_pipeline.scoring import RewardModel
from tests.ppo.test_resume import interrupted, state
from tests.ppo.toy import Recorder, make_trainer
from tests.tiny import make_llama, make_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft, in the tests' hands


def lora(task: str = "CAUSAL_LM") -> LoraConfig:
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type=task)


def shaken(model: Any) -> Any:
    """Let an adapter change something."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "score" in name:
            nn.init.normal_(weight, std=0.5)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base in `policy`, a reward model over it in `reward`."""
    make_llama(tmp_path / "policy")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "policy", num_labels=1)
    shaken(get_peft_model(classifier, lora("SEQ_CLS"))).save_pretrained(tmp_path / "reward")
    return tmp_path


def trainer_over_one_base(folder: Path, **changes: Any) -> Recorder:
    """A fresh LoRA policy; its critic starts from the reward model, whose score is the reward."""
    torch.manual_seed(0)  # TRL 1.14 makes the policy's adapter under whatever seed there is
    adapter = read_adapter(folder / "reward")
    shared = SharedReward(adapter, "reward_0")
    model = RewardModel(shared, make_tokenizer(), "reward")

    def score(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        rows = [[*make_tokenizer()(p)["input_ids"], *ids] for p, ids in zip(prompts, completion_ids, strict=True)]
        return model.score_ids(rows).tolist()

    settings = {"peft_config": lora(), "reward_funcs": [score], "shared_rewards": [shared], **changes}
    return make_trainer(folder, critic=SharedCritic(adapter, "critic"), **settings)


def weights_in_memory(trainer: Recorder, *others: nn.Module) -> int:
    """Bytes of all weights that the networks of a run hold, each storage once."""
    storages = {}
    modules = [trainer.model, trainer.critic, *others, *([trainer.ref_model] if trainer.ref_model is not None else [])]
    for module in modules:
        for tensor in [*module.parameters(), *module.buffers()]:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def test_four_networks_take_the_memory_of_one_and_their_adapters(folder: Path) -> None:
    trainer = trainer_over_one_base(folder)
    trainer.train()
    base = sum(p.numel() * 4 for p in AutoModelForCausalLM.from_pretrained(folder / "policy").parameters())
    adapters = sum(p.numel() * 4 for name, p in trainer.model.named_parameters() if "lora_" in name)
    assert weights_in_memory(trainer, trainer.critic) <= 1.15 * (base + adapters)
    assert {name.split(".lora_A.")[1] for name, _ in trainer.model.named_parameters() if "lora_A" in name} == {
        "default.weight", "critic.weight", "reward_0.weight",
    }  # fmt: skip


def test_scores_values_and_reference_are_those_of_networks_of_their_own(folder: Path) -> None:
    trainer = trainer_over_one_base(folder, max_steps=2, learning_rate=1e-2)
    trainer.train()
    (rollout,) = trainer.rollouts
    reward = AutoPeftModelForSequenceClassification.from_pretrained(folder / "reward", num_labels=1).eval()
    base = AutoModelForCausalLM.from_pretrained(folder / "policy").eval()
    ids, mask, width = joined(rollout)
    values = rollout["values"]
    for n in range(len(ids)):
        row, completion = ids[n][mask[n].bool()], int(mask[n, -width:].sum())
        with torch.no_grad():
            for t in range(completion):
                prefix = row[: len(row) - completion + t][None]
                assert values[n, t].item() == pytest.approx(reward(input_ids=prefix).logits.item(), abs=1e-5)
            logprobs = base(input_ids=row[None]).logits[0, -completion - 1 : -1].log_softmax(-1)
        expected = logprobs[range(completion), row[-completion:]]
        torch.testing.assert_close(rollout["ref_per_token_logps"][n, :completion], expected, atol=1e-5, rtol=1e-5)


def test_training_moves_policy_and_critic_and_leaves_base_and_reward(folder: Path) -> None:
    trainer = trainer_over_one_base(folder, max_steps=4, learning_rate=1e-2, num_iterations=2)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert {
        name for name in before if ".default." in name or ".critic." in name or name == "critic.head.weight"
    } == moved
    assert trainer.seen["kl_nats"][0] == 0


def gradients(folder: Path, **changes: Any) -> dict[str, Tensor]:
    """Trained weights after steps by SGD of rate 1, from adapters that differ."""
    trainer = trainer_over_one_base(
        folder, optim="sgd", learning_rate=1.0, max_grad_norm=0, num_iterations=2, max_steps=4, **changes
    )
    for name, p in trainer.model.named_parameters():
        if "lora_B.default" in name:
            nn.init.normal_(p, std=0.5, generator=torch.Generator().manual_seed(4))
    trainer.train()
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def test_layers_computed_again_have_the_gradient_of_their_own_adapter(folder: Path) -> None:
    """In the backward pass another adapter was the last in force."""
    plain = gradients(folder)
    again = gradients(folder, gradient_checkpointing=True)
    assert {name.split(".")[-2] for name in plain} == {"default", "critic", "head"}
    for name, weight in plain.items():
        torch.testing.assert_close(again[name], weight, atol=1e-6, rtol=1e-5)


def test_reentrant_checkpointing_is_refused(folder: Path) -> None:
    kwargs = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(ConfigError, match="use_reentrant false"):
        trainer_over_one_base(folder, **kwargs).train()


def test_saved_adapters_load_in_plain_peft(folder: Path) -> None:
    trainer = trainer_over_one_base(folder, max_steps=2, save_strategy="steps", save_steps=2, learning_rate=1e-2)
    trainer.train()
    saved = folder / "out" / "checkpoint-2"
    assert {path.name for path in saved.iterdir() if path.is_dir()} == {"critic"}
    own = load_file(folder / "reward" / "adapter_model.safetensors").keys() - {HEAD_KEY}
    assert load_file(saved / "adapter_model.safetensors").keys() == own
    assert load_file(saved / "critic" / "adapter_model.safetensors").keys() == own | {HEAD_KEY}
    rollout = trainer.rollouts[0]
    ids, mask, width = joined(rollout)
    packed = pack(ids, mask, width)
    policy = AutoPeftModelForCausalLM.from_pretrained(saved).eval()
    critic = AutoPeftModelForSequenceClassification.from_pretrained(saved / "critic", num_labels=1).eval()
    with torch.no_grad():
        trained = trainer.model(input_ids=packed.ids, predicts=packed.predicts)
        logits = policy(input_ids=packed.ids).logits[packed.predicts].log_softmax(-1)
        first = packed.predicts.int().argmax(dim=1)
        states = [critic(input_ids=packed.ids[n : n + 1, : first[n] + 1]).logits.item() for n in range(len(first))]
    expected = logits.gather(1, packed.labels[:, None]).squeeze(1)
    torch.testing.assert_close(trained["logprobs"], expected, atol=1e-5, rtol=1e-5)
    starts = [0, *packed.predicts.sum(dim=1).cumsum(0).tolist()[:-1]]
    torch.testing.assert_close(trained["values"][starts], torch.tensor(states), atol=1e-5, rtol=1e-5)


def test_resumed_weights_are_bit_identical(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def settings() -> dict[str, Any]:
        return {"peft_config": lora(), "critic": SharedCritic(fresh_adapter(lora(), 16), "critic")}

    from tests.ppo.test_resume import SETTINGS

    unbroken = make_trainer(tmp_path_factory.mktemp("a"), max_steps=24, **SETTINGS, **settings())
    unbroken.train()
    resumed = interrupted(tmp_path_factory.mktemp("b"), settings)
    one, other = state(unbroken), state(resumed)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_policy_that_goes_on_with_an_adapter_has_a_copy_of_it_as_reference(folder: Path) -> None:
    """Five adapters over one base: policy, its frozen start, critic, reward; and the base itself."""
    adapted = shaken(get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "policy"), lora()))
    trainer = trainer_over_one_base(folder, model=adapted, peft_config=None, max_steps=4, learning_rate=3e-2)
    trainer.train()
    assert trainer.seen["kl_nats"][0] == 0
    assert trainer.seen["kl_nats"][1] != 0


def test_an_adapter_without_a_score_is_no_critic(folder: Path) -> None:
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "policy"), lora())
    policy.save_pretrained(folder / "lora")
    with pytest.raises(ModelError, match="LoRA with one `score` label"):
        read_adapter(folder / "lora")
