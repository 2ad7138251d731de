"""PPO samples from vLLM through TRL, against a stand-in that speaks vLLM's interface.

What the stand-in fakes, and so cannot show, stands at the top of vllm_stand_in.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.ppo.toy import Recorder, checksum, make_trainer
from tests.ppo.vllm_server_stand_in import http_packages, serve
from tests.ppo.vllm_stand_in import Answer, Engine, install, packages
from tests.tiny import make_llama

OLDEST, NEWEST = "0.22.0", "0.30.0"
"""Ends of what TRL 1.14 to 1.16 support; it sends weights to vLLM below 0.28 in another way."""

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
Start = Callable[..., tuple[Recorder, Engine]]


@pytest.fixture(params=[("colocate", NEWEST), ("server", OLDEST), ("server", NEWEST)], ids="-".join)
def start(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A function from settings to a trainer that samples from a stand-in, and its engine; once for every mode."""
    mode, version = request.param
    folder = tmp_path / "policy"
    make_llama(folder)
    wire: Queue[Tensor] = Queue()
    install(monkeypatch, {**packages(version, wire), **http_packages()})
    serving = serve(str(folder), version, wire) if mode == "server" else contextlib.nullcontext()
    with serving as server:

        def make(**changes: Any) -> tuple[Recorder, Engine]:
            address = {} if server is None else {"vllm_server_base_url": server.url}
            settings = {"use_vllm": True, "vllm_mode": mode, "temperature": 0.7, "max_steps": 4, **address, **changes}
            trainer = make_trainer(tmp_path, **settings)
            return trainer, trainer.vllm_generation.llm.engine if server is None else server.engine

        yield make


def policy_weights(trainer: Recorder) -> dict[str, Tensor]:
    named = trainer.model.named_parameters()
    return {name: weight.detach().clone() for name, weight in named if not name.startswith("critic.")}


def real_tokens(rollout: dict[str, Any], part: str) -> list[list[int]]:
    rows = zip(rollout[f"{part}_ids"], rollout[f"{part}_mask"].bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in rows]


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_two_rollouts_are_sampled_by_the_engine_with_the_policys_weights_and_nothing_else(start: Start) -> None:
    policies = []

    def score(completions: list[str], **_: Any) -> list[float]:
        policies.append(policy_weights(trainer))
        return checksum(completions)

    trainer, engine = start(reward_funcs=[score])
    trainer.train()
    kept = (trainer.rollouts, policies, engine.syncs, engine.used, engine.answers)
    assert [len(of_rollouts) for of_rollouts in kept] == [2] * 5
    for rollout, policy, sent, used, answers in zip(*kept, strict=True):
        assert_equal(sent, policy)
        assert_equal(used, policy)
        assert_same_tokens(rollout, answers)
    assert not torch.equal(policies[0]["lm_head.weight"], policies[1]["lm_head.weight"]), "the policy must have moved"


def assert_same_tokens(rollout: dict[str, Any], answers: list[Answer]) -> None:
    """The rollout holds the engine's tokens and log-probabilities, which the trainer's own come close to."""
    assert real_tokens(rollout, "prompt") == [answer.prompt for answer in answers]
    assert real_tokens(rollout, "completion") == [answer.ids for answer in answers]
    mask = rollout["completion_mask"].bool()
    sampled = rollout["sampling_per_token_logps"][mask]
    torch.testing.assert_close(sampled, torch.tensor([logprob for answer in answers for logprob in answer.logprobs]))
    torch.testing.assert_close(sampled, rollout["old_per_token_logps"][mask], **CLOSE)
    ratio = rollout["importance_sampling_ratio"]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-4, rtol=0)


def test_held_out_prompts_are_sampled_with_the_last_weights(start: Start) -> None:
    trainer, engine = start(eval_dataset=Dataset.from_list([{"prompt": "hello"}] * 4))
    trainer.train()
    trainer.evaluate()
    trainer.evaluate()
    assert_equal(engine.used[-2], policy_weights(trainer))
    assert_equal(engine.used[-1], policy_weights(trainer))
    assert len(engine.syncs) == 3, "two rollouts and the first evaluation; nothing changed before the second"


@pytest.mark.parametrize("start", [("colocate", NEWEST)], indirect=True)
def test_an_engine_that_sleeps_gets_its_weights_again(start: Start) -> None:
    trainer, engine = start(vllm_enable_sleep_mode=True, eval_dataset=Dataset.from_list([{"prompt": "hello"}] * 4))
    trainer.train()
    trainer.evaluate()
    trainer.evaluate()
    assert len(engine.syncs) == len(engine.used) == 4
    assert_equal(engine.used[-1], policy_weights(trainer))
    assert engine.awake == set()


def test_a_completion_ends_at_the_first_stop_token_that_the_trainer_knows(start: Start, tmp_path: Path) -> None:
    """The folder that vLLM loads may declare others: an adapter's base has the tokenizer of before SFT."""
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    stops = {1, *range(60, 110)}
    model.generation_config.eos_token_id = sorted(stops)
    trainer, engine = start(model=model, max_completion_length=20, max_steps=2)
    trainer.train()
    (answers,) = engine.answers
    ended = [answer.ids[-1] in stops for answer in answers]
    assert not stops & {token for answer in answers for token in answer.ids[:-1]}
    assert sum(ended) > 4
    assert trainer.seen["eos_fraction"] == [sum(ended) / 8]


def test_the_ratio_to_an_engine_that_disagrees_is_cut(start: Start) -> None:
    trainer, engine = start(vllm_importance_sampling_mode="token_truncate", vllm_importance_sampling_clip_max=1.5)
    engine.bias = -0.3
    trainer.train()
    engine.bias = -0.5
    trainer.evaluate(Dataset.from_list([{"prompt": "hello"}] * 4))
    for rollout, expected in zip(trainer.rollouts, [torch.tensor(0.3).exp().item()] * 2 + [1.5], strict=True):
        ratio = rollout["importance_sampling_ratio"][rollout["completion_mask"].bool()]
        torch.testing.assert_close(ratio, torch.full_like(ratio, expected), atol=1e-4, rtol=0)


def test_completions_that_the_policy_would_hardly_sample_teach_the_critic_alone(start: Start) -> None:
    trainer, engine = start(vllm_importance_sampling_mode="sequence_mask", vllm_importance_sampling_clip_max=3.0)
    engine.bias = -2.0
    policy, critic = policy_weights(trainer), {name: w.clone() for name, w in trainer.critic.state_dict().items()}
    trainer.train()
    assert_equal(policy_weights(trainer), policy)
    assert not torch.equal(trainer.critic.state_dict()["head.weight"], critic["head.weight"])


def test_an_adapter_is_sent_added_to_its_base_which_stays_as_it_was(start: Start) -> None:
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    trainer, engine = start(peft_config=lora, learning_rate=3e-2)
    trainer.model.add_adapter("other", LoraConfig(**{**lora.to_dict(), "init_lora_weights": False}))
    base = {name: w.clone() for name, w in policy_weights(trainer).items() if "lora_" not in name}
    trainer.train()
    first, second = trainer.rollouts
    assert_same_tokens(first, engine.answers[0])
    assert_same_tokens(second, engine.answers[1])
    moved = (second["old_per_token_logps"] - second["ref_per_token_logps"]).abs().max()
    assert moved > 1e-3, "an engine that samples from the base must be told apart"
    assert [sent.keys() for sent in engine.syncs] == [engine.weights().keys()] * 2
    assert_equal({name: w for name, w in policy_weights(trainer).items() if "lora_" not in name}, base)
