"""Recipes as data: every YAML loads, every key is a setting of its stage, and each opens as a receipt."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.config import read_settings, refuse_unknown, take

ROOT = Path(__file__).parents[1]
RECIPES = sorted(file for file in (ROOT / "recipes").glob("*/*.yaml") if file.parent.name != "accelerate")
STAGES = ("sft", "reward", "ppo")

# Stage -> our own settings, and the configurations of TRL that stand beside them.
SETTINGS = {
    "pretrain": ("rlhf_pipeline.stages.pretrain.PretrainSettings", "trl.SFTConfig"),
    "sft": ("rlhf_pipeline.stages.sft.SFTSettings", "trl.SFTConfig"),
    "reward": ("rlhf_pipeline.stages.reward.RewardSettings", "trl.RewardConfig"),
    "ppo": ("rlhf_pipeline.stages.ppo.PPOSettings", "rlhf_pipeline.ppo.config.PPOConfig"),
    "sample": ("rlhf_pipeline.feedback.sample.SampleSettings",),
    "label": ("rlhf_pipeline.feedback.simulate.LabelSettings",),
    "eval": ("rlhf_pipeline.evaluate.command.EvaluationSettings",),
}
GIVEN_BY_MAKE = {"sample": {"prompts": "prompts.jsonl"}}
ON_A_CPU = {"use_cpu": True, "bf16": False, "report_to": "none"}


def load(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def recipe_name(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def head(file: Path) -> str:
    lines = file.read_text().splitlines()
    return "\n".join(lines[: next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))])


@pytest.mark.parametrize("file", RECIPES, ids=recipe_name)
def test_every_key_is_a_setting_of_the_right_type(file: Path, tmp_path: Path) -> None:
    settings = read_settings(["--config", str(file)])
    own, *configs = [load(dotted) for dotted in SETTINGS[file.stem]]
    model_config = [load("trl.ModelConfig")] if configs else []
    refuse_unknown(settings, own, *configs, *model_config)
    take(own, settings, **GIVEN_BY_MAKE.get(file.stem, {}))
    for config in model_config:
        take(config, settings)
    for config in configs:
        take(config, settings, output_dir=str(tmp_path), **ON_A_CPU)


@pytest.mark.parametrize("file", RECIPES, ids=recipe_name)
def test_opens_with_its_command(file: Path) -> None:
    text = head(file)
    assert "# Run:" in text
    assert f"recipes/{file.parent.name}/{file.name}" in text
    for path in re.findall(r"recipes/[\w/.-]+\.(?:yaml|py)", text):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("file", [f for f in RECIPES if f.parent.name != "demo"], ids=recipe_name)
def test_opens_with_hardware_time_and_what_to_expect(file: Path) -> None:
    text = head(file)
    for entry in ("# Hardware:", "# Time:", "# Expect:"):
        assert entry in text
    assert re.search(r"recipes/accelerate/\w+\.yaml recipes/" + file.stem + r"\.py", text)


@pytest.mark.parametrize("folder", sorted({file.parent for file in RECIPES}), ids=lambda folder: folder.name)
def test_every_recipe_has_all_three_stages(folder: Path) -> None:
    assert {f"{stage}.yaml" for stage in STAGES} <= {file.name for file in folder.glob("*.yaml")}


@pytest.mark.parametrize("stage", STAGES)
def test_entry_points_are_the_command(stage: str) -> None:
    entry = [sys.executable, str(ROOT / "recipes" / f"{stage}.py"), "--kl_coeff", "1", "--data", "absent.jsonl"]
    done = subprocess.run(entry, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_makefile_calls_the_demo_recipes() -> None:
    called = set(re.findall(r"call demo_stage,(\w+)|recipes/demo/(\w+)\.yaml", (ROOT / "Makefile").read_text()))
    assert {"".join(pair) for pair in called} == {file.stem for file in RECIPES if file.parent.name == "demo"}
