"""Whoever has transformers (and peft) has the models: nothing of ours is imported, and the logits are ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
from safetensors.torch import load_file

from rlhf_pipeline.bases import find_checkpoint
from rlhf_pipeline.models import load_causal, load_classifier
from tests.e2e import plain_loading
from tests.e2e.conftest import Trained
from tests.e2e.pipeline import Pipeline
from tests.tiny import ARCHITECTURES

pytestmark = pytest.mark.e2e

KINDS = (*ARCHITECTURES, "lora")
ROLES = {"base", "sft", "reward", "policy", "critic"}
SCORING = ("reward", "critic")
Logits = dict[str, torch.Tensor]


def folders(pipeline: Pipeline) -> dict[str, str]:
    return {role: str(pipeline.store.path(name)) for role, name in pipeline.refs().items()}


@pytest.fixture(scope="module")
def pipelines(trained: Trained, adapted: Pipeline) -> dict[str, Pipeline]:
    """All that the tests trained, by architecture, and the one of adapters."""
    return {**{architecture: trained(architecture) for architecture in ARCHITECTURES}, "lora": adapted}


@pytest.fixture(scope="module")
def plain_logits(pipelines: Mapping[str, Pipeline], tmp_path_factory: pytest.TempPathFactory) -> Logits:
    """What one process without this package gets from every object: folder -> logits."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    named = sorted({folder for pipeline in pipelines.values() for folder in folders(pipeline).values()})
    command = [sys.executable, plain_loading.__file__, str(elsewhere / "logits.safetensors"), *named]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "COV"))}
    done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment)
    assert done.returncode == 0, done.stderr
    return load_file(elsewhere / "logits.safetensors")


@torch.no_grad()
def our_logits(pipeline: Pipeline, role: str) -> torch.Tensor:
    load = load_classifier if role in SCORING else load_causal
    model = load(pipeline.store, find_checkpoint(pipeline.store, role, pipeline.run)).eval()
    return model(input_ids=plain_loading.IDS).logits


@pytest.mark.parametrize("kind", KINDS)
def test_every_artifact_loads_without_this_package(
    kind: str, pipelines: Mapping[str, Pipeline], plain_logits: Logits
) -> None:
    here = folders(pipelines[kind])
    assert here.keys() >= ROLES
    for role, folder in here.items():
        assert plain_logits[folder].shape == ((2, 1) if role in SCORING else (2, 5, 258)), role
        assert torch.equal(plain_logits[folder], our_logits(pipelines[kind], role)), role
    assert len({tuple(plain_logits[folder].flatten().tolist()) for folder in here.values()}) >= len(ROLES)


def test_a_merged_adapter_is_the_adapter_over_its_base(adapted: Pipeline, plain_logits: Logits) -> None:
    here = folders(adapted)
    torch.testing.assert_close(plain_logits[here["sft-merged"]], plain_logits[here["sft"]])
    assert not torch.equal(plain_logits[here["sft"]], plain_logits[here["base"]])
