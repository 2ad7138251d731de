"""Tiny pipelines that several tests look at, each trained once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from rlhf_pipeline import cli
from tests.e2e.pipeline import Pipeline, write_rows
from tests.tiny import make_causal

Trained = Callable[[str], Pipeline]
LATER = ("reward", "ppo")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows for every stage."""
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, rows: Path) -> Trained:
    """A pipeline by architecture, all three stages run; tests only look at it."""

    @cache
    def train(architecture: str) -> Pipeline:
        folder = tmp_path_factory.mktemp(architecture)
        make_causal(architecture, folder / "base")
        pipeline = Pipeline(folder / "artifacts", rows)
        pipeline.make("sft", "--base", str(folder / "base"))
        for stage in LATER:
            pipeline.make(stage)
        return pipeline

    return train


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory, rows: Path) -> Pipeline:
    """A pipeline of LoRA adapters."""
    folder = tmp_path_factory.mktemp("lora")
    make_causal("llama", folder / "base")
    pipeline = Pipeline(folder / "artifacts", rows)
    lora = ("--use_peft", "true", "--lora_r", "4")
    pipeline.make("sft", "--base", str(folder / "base"), *lora)
    assert cli.main(["artifacts", "merge", "sft", "--artifacts", str(pipeline.root)]) == 0
    pipeline.make("reward", "--model", "sft-merged", *lora)
    pipeline.make("ppo", "--model", "sft-merged", *lora)
    return pipeline
