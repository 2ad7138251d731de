"""The contract with TRL: a release that changes what the trainer rests on fails here, by name."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from transformers import Trainer
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from rlhf_pipeline.ppo.config import FIXED
from rlhf_pipeline.ppo.seams import SEAMS
from rlhf_pipeline.ppo.trainer import PPOTrainer
from tests.ppo.toy import make_trainer

ADVICE = "read its new source, then change rlhf_pipeline/ppo/seams.py"


@pytest.mark.parametrize("name", SEAMS)
def test_an_extended_method_keeps_its_signature(name: str) -> None:
    method = inspect.getattr_static(GRPOTrainer, name, None)
    assert method is not None, f"this TRL has no {name}; {ADVICE}"
    expected = SEAMS[name]
    for cls in (GRPOTrainer, PPOTrainer):
        found = tuple(inspect.signature(getattr(cls, name)).parameters)[1:]
        assert found[: len(expected)] == expected, f"this TRL changed {name}{found}; {ADVICE}"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("_generate_and_score_completions", ["self.beta != 0.0", "self._calculate_rewards(", "self._generate(",
                                             '"old_per_token_logps"', '"sampling_per_token_logps"']),
        ("_generate", ["self._generate_single_turn("]),
        ("_prepare_inputs", ["self._buffered_inputs", "self._step % generate_every"]),
        ("_compute_loss", ["self._get_per_token_logps_and_entropies(", "compute_entropy=True",
                           "advantages.dim() == 1", 'inputs["num_items_in_batch"]', "self.args.steps_per_generation"]),
    ],
)  # fmt: skip
def test_what_the_overrides_take_for_granted_is_still_in_the_source(method: str, words: list[str]) -> None:
    source = inspect.getsource(inspect.unwrap(getattr(GRPOTrainer, method)))
    assert [word for word in words if word not in source] == [], f"{method} changed; {ADVICE}"


def test_log_probabilities_are_asked_for_in_one_way(tmp_path: Path) -> None:
    """The method is replaced, so what TRL passes to it and reads from it is the contract."""
    trainer = make_trainer(tmp_path, num_iterations=2, max_steps=4)
    plain = trainer._get_per_token_logps_and_entropies
    asked: list[set[str]] = []

    def spy(*args: object, **kwargs: object) -> object:
        asked.append({name for name, value in kwargs.items() if value is not None})
        assert len(args) in (4, 5), f"other positional arguments; {ADVICE}"
        found = plain(*args, **kwargs)
        assert len(found) == 3
        return found

    trainer._get_per_token_logps_and_entropies = spy
    trainer.train()
    known = {"batch_size", "compute_entropy", "compute_aux_loss"}
    assert len(asked) == 5, f"one call for the rollout, one for each micro-batch; {ADVICE}"
    assert all(names <= known for names in asked), f"{asked}; {ADVICE}"


def test_attributes_are_there(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    names = [
        "_step", "_buffered_inputs", "_metrics", "beta", "ref_model", "reward_weights", "use_vllm",
        "temperature", "num_iterations", "epsilon_low", "epsilon_high", "num_generations",
    ]  # fmt: skip
    assert [name for name in names if name not in vars(trainer)] == [], ADVICE


def test_the_fixed_settings_are_known_by_name() -> None:
    unknown = [name for name in FIXED if name not in GRPOConfig.__dataclass_fields__]
    assert set(unknown) <= {"router_aux_loss_coef", "use_adaptive_entropy", "entropy_coef"}, f"{unknown}; {ADVICE}"


def test_the_model_is_unwrapped_by_two_arguments() -> None:
    assert tuple(inspect.signature(unwrap_model_for_generation).parameters)[:2] == ("model", "accelerator"), ADVICE


def test_the_sampler_keeps_its_arguments_as_attributes() -> None:
    sampler = RepeatSampler([1, 2], mini_repeat_count=1, batch_size=1, repeat_count=1, shuffle=True, seed=0)
    for name in inspect.signature(RepeatSampler).parameters:
        assert name in vars(sampler), ADVICE


def test_transformers_saves_and_loads_where_the_trainer_extends_it() -> None:
    for name in ("_save_checkpoint", "_load_optimizer_and_scheduler", "_save", "_load_from_checkpoint"):
        assert callable(inspect.getattr_static(Trainer, name, None)), f"transformers lost {name}"
