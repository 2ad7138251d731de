"""A paper's settings stand below the file and the command line, exist, and say what they leave out."""

from __future__ import annotations

import pytest

from rlhf_pipeline.config import Setting
from rlhf_pipeline.ppo.config import PPOConfig, fixed_settings
from rlhf_pipeline.ppo.presets import PRESETS, describe, with_preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_exists_and_is_open(name: str) -> None:
    settings = PRESETS[name].settings.keys()
    assert settings <= PPOConfig.__dataclass_fields__.keys()
    assert not settings & fixed_settings().keys()


def test_what_is_asked_stands_above_the_preset() -> None:
    asked = {"kl_coef": Setting("kl_coef", "0.1", "--kl_coef")}
    settings = with_preset(asked, "tldr")
    assert settings["kl_coef"] is asked["kl_coef"]
    assert settings["vf_coef"] == Setting("vf_coef", 0.1, "preset tldr")


def test_the_papers_figures() -> None:
    tldr, instructgpt = PRESETS["tldr"].settings, PRESETS["instructgpt"].settings
    assert [tldr[name] for name in ("learning_rate", "kl_coef", "num_iterations", "temperature")] == [
        3e-6,
        0.05,
        4,
        0.7,
    ]
    assert [instructgpt[name] for name in ("kl_coef", "ptx_coef", "ema_decay")] == [0.02, 27.8, 0.992]


def test_what_is_left_out_is_listed() -> None:
    lines = describe("instructgpt").splitlines()
    assert "Ouyang et al. 2022" in lines[0]
    assert "kl_coef 0.02" in lines[0]
    assert len(lines) == 1 + len(PRESETS["instructgpt"].left_out)
    assert all(line.startswith("  left out: ") for line in lines[1:])
