"""The contract with TRL: a release that changes what the trainer rests on fails here, by name."""

from __future__ import annotations

import inspect

import pytest
import torch
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler, add_fused_lm_head

from rlhf_pipeline.ppo.trainer import SEAMS, PPOTrainer
from tests.tiny import make_llama

ADVICE = "read its new source, then change rlhf_pipeline/ppo/trainer.py"


@pytest.mark.parametrize("name", SEAMS)
def test_an_extended_method_keeps_its_signature(name: str) -> None:
    method = inspect.getattr_static(GRPOTrainer, name, None)
    assert method is not None, f"this TRL has no {name}; {ADVICE}"
    found = tuple(inspect.signature(getattr(GRPOTrainer, name)).parameters)[1:]
    assert found == SEAMS[name], f"this TRL changed {name}{found}; {ADVICE}"
    ours = tuple(inspect.signature(getattr(PPOTrainer, name)).parameters)[1:]
    assert ours == SEAMS[name]


def test_the_logprob_helper_is_called_as_trl_calls_it() -> None:
    parameters = tuple(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert parameters[:5] == ("self", "model", "input_ids", "attention_mask", "logits_to_keep"), ADVICE


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("_generate_and_score_completions", ["self.beta != 0.0", "self._calculate_rewards(", '"ref_per_token_logps"']),
        ("_prepare_inputs", ["self._buffered_inputs", "self._step % self.args.steps_per_generation"]),
        ("_compute_loss", ["advantages.dim() == 1", 'inputs["num_items_in_batch"]', "self.args.steps_per_generation"]),
    ],
)
def test_what_the_overrides_take_for_granted_is_still_in_the_source(method: str, words: list[str]) -> None:
    source = inspect.getsource(inspect.unwrap(getattr(GRPOTrainer, method)))
    assert [word for word in words if word not in source] == [], f"{method} changed; {ADVICE}"


def test_the_fused_head_is_called_by_keyword_and_gives_log_probs() -> None:
    model = make_llama()
    add_fused_lm_head(model, temperature=0.5, outputs=("log_probs", "entropy"))
    ids = torch.arange(6)[None]
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, fused_lm_head=True)
    expected = (model(input_ids=ids).logits[:, :-1] / 0.5).log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(output.log_probs, expected, msg=f"temperature is not in the log-probabilities; {ADVICE}")


def test_the_sampler_keeps_its_arguments_as_attributes() -> None:
    sampler = RepeatSampler([1, 2], mini_repeat_count=1, batch_size=1, repeat_count=1, shuffle=True, seed=0)
    for name in inspect.signature(RepeatSampler).parameters:
        assert name in vars(sampler), ADVICE
