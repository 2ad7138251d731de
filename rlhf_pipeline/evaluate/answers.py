"""What the compared models answer to the same prompts: K samples and one greedy answer each, their rewards and KL.

One model is in memory at a time. Each draws random numbers of its own: shared ones would make the samples of two models
alike, and win rates between them anything but those of independent samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.bases import Checkpoint
from rlhf_pipeline.encoding import encode_prompt
from rlhf_pipeline.evaluate.kl import completion_kl
from rlhf_pipeline.evaluate.statistics import Floats
from rlhf_pipeline.generation import Completion, logprobs, placement, sample
from rlhf_pipeline.models import load_causal, load_tokenizer
from rlhf_pipeline.records import Text
from rlhf_pipeline.scoring import RewardModel, same_tokenizer


@dataclass(frozen=True)
class Sampling:
    """How models are sampled: `num_generations` (K) completions a prompt at `temperature`, and a greedy one beside."""

    num_generations: int
    temperature: float
    max_completion_length: int
    seed: int
    batch_size: int


@dataclass(frozen=True)
class Answers:
    """One model's answers to P prompts: (P, K) sampled and (P,) greedy; rewards (P, K) and KL (P,) where measured.

    The KL is that of the first sample, to the reference, in nats; NaN where the tokenizers differ.
    """

    sampled: list[list[Completion]]
    greedy: list[Completion]
    rewards: Floats | None = None
    kl: Floats | None = None

    def texts(self) -> list[list[str]]:
        """The sampled answers as text, (P, K)."""
        return [[completion.text for completion in several] for several in self.sampled]

    def rows(self, places: Sequence[int]) -> Answers:
        """The answers to some of the prompts."""
        chosen = list(places)
        return Answers(
            [self.sampled[i] for i in chosen],
            [self.greedy[i] for i in chosen],
            None if self.rewards is None else self.rewards[chosen],
            None if self.kl is None else self.kl[chosen],
        )


def answer_all(
    store: Store,
    models: Mapping[str, Checkpoint],
    reference: str | None,
    prompts: Sequence[Text],
    sampling: Sampling,
) -> dict[str, Answers]:
    """Sample every model on all prompts; those beside `reference` get their KL to it."""
    answers, own_logprobs = {}, {}
    for number, (name, checkpoint) in enumerate(models.items()):
        model, tokenizer = load_causal(store, checkpoint, **placement()), load_tokenizer(checkpoint)
        answers[name] = answer(model, tokenizer, prompts, replace(sampling, seed=sampling.seed * 1000 + number))
        if reference is not None and name != reference:
            own_logprobs[name] = _first_logprobs(model, tokenizer, prompts, answers[name], sampling)
    if reference is None or not own_logprobs:
        return answers
    model, tokenizer = load_causal(store, models[reference], **placement()), load_tokenizer(models[reference])
    for name, ours in own_logprobs.items():
        if same_tokenizer(tokenizer, load_tokenizer(models[name])):
            theirs = _first_logprobs(model, tokenizer, prompts, answers[name], sampling)
            answers[name] = replace(answers[name], kl=completion_kl(ours, theirs))
    return answers


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    sampling: Sampling,
    *,
    greedy: bool = True,
) -> Answers:
    """Sample one model that is loaded; without `greedy`, no greedy answers are made."""
    common: dict[str, Any] = {"max_new_tokens": sampling.max_completion_length, "batch_size": sampling.batch_size}
    several = sample(
        model, tokenizer, prompts, temperature=sampling.temperature, seed=sampling.seed,
        num_return_sequences=sampling.num_generations, **common,
    )  # fmt: skip
    likeliest = sample(model, tokenizer, prompts, temperature=0, seed=0, **common) if greedy else []
    return Answers(several, [one for [one] in likeliest])


def _first_logprobs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    answers: Answers,
    sampling: Sampling,
) -> list[Tensor]:
    """Log-probabilities of the first sample to each prompt; greedy sampling has no distribution, so 1 stands in."""
    prompt_ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    completion_ids = [several[0].token_ids for several in answers.sampled]
    return logprobs(model, tokenizer, prompt_ids, completion_ids, sampling.temperature or 1.0)


def with_rewards(answers: Answers, prompts: Sequence[Text], reward: RewardModel) -> Answers:
    """Score the sampled answers with a reward model, as text: it may have a tokenizer of its own."""
    samples = len(answers.sampled[0])
    flat = [completion for several in answers.sampled for completion in several]
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    scores = reward.score(repeated, [one.text for one in flat], [one.finished for one in flat])
    return replace(answers, rewards=np.asarray(scores, dtype=np.float64).reshape(-1, samples))
