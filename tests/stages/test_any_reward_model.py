"""PPO with a reward model of another vocabulary, EOS and chat template, both ways, by the ids that it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.errors import ConfigError, ModelError
from rlhf_pipeline.stages import ppo
from tests.spying import scored_rows
from tests.stages.test_ppo import write_rows
from tests.vocabularies import rendered, save_policy, save_reward, written

STOPS = list(range(60, 100))
"""Plain tokens that end a completion too, so that about half of the random completions end by themselves."""

RECORD = """
import json

def record(prompts, completions, completion_ids, finished, **_):
    with open("seen.jsonl", "a") as file:
        for row in zip(prompts, completion_ids, finished):
            file.write(json.dumps(row) + "\\n")
    return [0.0] * len(prompts)
"""


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids that reach the reward model's forward pass, without padding."""
    return scored_rows(monkeypatch)


def command(folder: Path, *more: str) -> list[str]:
    settings = {
        "artifacts": "artifacts", "model": "./policy", "data": "prompts.jsonl", "max_completion_length": 6,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "steps_per_generation": 2,
        "learning_rate": "1e-3", "max_steps": 4, "eval_fraction": 0.2,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [*words, "--reward", str(folder / "reward"), "record.py:record", "--reward_weights", "1", "0", *more]


def set_up(folder: Path, policy: str, reward: str, chat: bool) -> tuple[Any, Any]:
    """Models, prompts and the recording reward function in `folder`; gives the two tokenizers."""
    texts = [f"say something kind about the cat {n}" for n in range(30)]
    prompts = [[{"role": "user", "content": text}] if chat else text for text in texts]
    write_rows(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in prompts])
    (folder / "record.py").write_text(RECORD)
    return save_policy(folder / "policy", policy, stops=STOPS), save_reward(folder / "reward", reward)


@pytest.mark.parametrize(
    ("policy", "reward", "chat"),
    [
        ("bpe", "bytes", True),
        ("bytes", "words", True),
        ("words", "bpe", True),
        ("bpe", "bytes", False),
        ("pieces", "bytes", False),
    ],
)
def test_it_scores_the_policys_text_in_its_own_form(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rows: list[list[int]],
    policy: str,
    reward: str,
    chat: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    ours, theirs = set_up(tmp_path, policy, reward, chat)
    assert ours.eos_token != theirs.eos_token and ours.chat_template != theirs.chat_template
    assert ppo.main(command(tmp_path)) == 0

    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    expected, ended = [], 0
    for prompt, ids, finished in seen:
        text = written(policy, ours, ids[:-1] if finished else ids)
        whole = rendered(reward, prompt[0]["content"], text) if chat else prompt + text
        expected.append(theirs(whole, add_special_tokens=False)["input_ids"] + [theirs.eos_token_id] * finished)
        ended += finished
    assert 0 < ended < len(seen), "some completions must end, and some be cut off"
    assert sorted(rows) == sorted(expected)
    assert sum(row[-1] == theirs.eos_token_id for row in rows) == ended
    assert all(theirs.eos_token_id not in row[:-1] for row in rows)

    store = Store(tmp_path / "artifacts")
    critic = store.path(store.refs()["default"]["critic"])
    assert AutoTokenizer.from_pretrained(critic).get_vocab() == ours.get_vocab()
    printed = capsys.readouterr()
    assert "the critic starts from base-" in printed.out and "with a head of zeros" in printed.out
    assert "chat template" not in printed.err, "other vocabularies have other templates, which is no mistake"


def test_the_critic_cannot_start_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    set_up(tmp_path, "bpe", "bytes", chat=False)
    with pytest.raises(ConfigError, match="no reward model has the policy's tokenizer; set critic to policy"):
        ppo.main(command(tmp_path, "--critic", "reward"))


def test_text_that_is_too_long_in_its_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """35 characters are some 10 tokens to the policy, and as many as bytes to the reward model."""
    monkeypatch.chdir(tmp_path)
    set_up(tmp_path, "bpe", "bytes", chat=False)
    save_reward(tmp_path / "reward", "bytes", max_position_embeddings=30)
    with pytest.raises(ModelError, match=r"a text of \d+ tokens in its tokenizer, more than its 30 positions"):
        ppo.main(command(tmp_path))
    assert Store(tmp_path / "artifacts").refs() == {}
