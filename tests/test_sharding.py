"""Without ZeRO-3 nothing is gathered or shared out, and DeepSpeed is not even imported; with it: tests/distributed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from transformers.integrations import deepspeed as state

from rlhf_pipeline.sharding import gathered, gathered_for_sampling, loaded_whole, share_frozen, zero_stage


class Config:
    """What transformers asks its DeepSpeed configuration."""

    def __init__(self, stage: int) -> None:
        self.config = {"zero_optimization": {"stage": stage}}

    def is_zero3(self) -> bool:
        """Whether weights are shared out."""
        return self.config["zero_optimization"]["stage"] == 3


@pytest.fixture
def zero3() -> Iterator[Config]:
    config = Config(3)
    state.set_hf_deepspeed_config(config)
    yield config
    state.unset_hf_deepspeed_config()


def test_without_deepspeed_everything_is_whole() -> None:
    layer = nn.Linear(2, 2)
    assert zero_stage() == 0
    with gathered(layer.parameters(), write=True), torch.no_grad():
        layer.weight.fill_(3.0)
    assert layer.weight.eq(3).all()
    assert share_frozen(layer, accelerator=None) is None
    with gathered_for_sampling(None, layer.parameters()):
        assert layer(torch.ones(1, 2)).shape == (1, 2)


def test_the_stage_is_that_of_the_launch(zero3: Config) -> None:
    assert zero_stage() == 3
    zero3.config["zero_optimization"]["stage"] = 2
    assert zero_stage() == 2


def test_models_are_loaded_whole_for_a_while(zero3: Config) -> None:
    assert state.is_deepspeed_zero3_enabled()
    with pytest.raises(KeyError), loaded_whole():
        assert not state.is_deepspeed_zero3_enabled() and zero_stage() == 0
        raise KeyError
    assert state.is_deepspeed_zero3_enabled()


def test_deepspeed_is_not_imported() -> None:
    code = "import sys; import rlhf_pipeline.sharding; assert 'deepspeed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
