"""In the learning benchmark TRL 1.12 is rewarded by the same function of the same ids as ours, and as is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.learning import sentiment as words
from benchmarks.learning.measure import reward_of, text_of
from benchmarks.learning.task import to_arguments
from tests.benchmarks.learning_runs import LETTERS, TINY, make_folder
from tests.tiny import make_tokenizer
from tests.trl112.captured import EOS, PAD, WHY

contestant = pytest.importorskip("benchmarks.learning.contestant_trl", reason=WHY)
get_reward = pytest.importorskip("trl.experimental.utils", reason=WHY).get_reward

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL 1.12 on a transformers that is younger

COMPLETIONS = ["she smiled", "sad", "was lost."]


def as_trl_sees_it(prompts: list[list[int]], completions: list[list[int]]) -> tuple[Tensor, int]:
    """Prompts padded left, completions padded right behind their EOS: (B, P + C), and P."""
    before, after = max(map(len, prompts)), max(map(len, completions))
    rows = [
        [*[PAD] * (before - len(prompt)), *prompt, *completion, *[PAD] * (after - len(completion))]
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    return torch.tensor(rows), before


@pytest.mark.parametrize("reward", [True, False], ids=["reward model", "words"])
def test_the_same_reward_with_and_without_eos(reward: bool, tmp_path: Path) -> None:
    folder, tokenizer = make_folder(tmp_path, reward=reward), make_tokenizer()
    texts = ["a?", "bcd?", "efghi?"] if reward else ["abc?", "def?", "ghi?"]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    completions = [tokenizer(text)["input_ids"] for text in COMPLETIONS]
    completions[0].append(EOS)
    rows, width = as_trl_sees_it(prompts, completions)
    model = contestant.make_reward(folder, tokenizer, prompts).eval()
    with torch.no_grad():
        _, scores, _ = get_reward(model, rows, PAD, width)
        expected = reward_of(folder, tokenizer)(prompts, completions)
    torch.testing.assert_close(scores.float(), expected.float(), atol=1e-5, rtol=1e-5)
    assert text_of(tokenizer, completions[0]) == COMPLETIONS[0]


def test_prompts_of_several_lengths_are_refused_where_words_are_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, reward=False)
    with pytest.raises(ValueError, match="prompts of 1 to 2 tokens"):
        contestant.make_reward(folder, make_tokenizer(), [[5], [6, 7]])


@pytest.mark.parametrize("reward", [True, False], ids=["reward model", "words"])
def test_theirs_learns_and_reports_a_point_an_update(
    reward: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "GLAD", LETTERS)
    make_folder(tmp_path / TINY.name, reward=reward)
    contestant.main(to_arguments(TINY, tmp_path))
    run = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(run["points"]) == TINY.updates + 1
    assert run["points"][0]["kl_nats"] == 0.0 < run["points"][2]["kl_nats"]
