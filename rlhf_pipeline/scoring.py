"""Score completions with a reward model, on exactly the token form that it was trained on.

A reward model with the policy's tokenizer is given the ids that the policy sampled. One with a tokenizer of its own is
given the same text, encoded by its own rules. Either way EOS is there if and only if the policy produced it.

An ensemble has one score for each of M members, and what they are reduced to (`ensembles`).

Left out: training (`stages.reward`), and combining several rewards (`stages.ppo`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from rlhf_pipeline.encoding import encode_completion, encode_prompt
from rlhf_pipeline.ensembles import Members, Reduction
from rlhf_pipeline.errors import ModelError
from rlhf_pipeline.normalization import Normalization

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlhf_pipeline.ppo.shared import SharedReward
    from rlhf_pipeline.records import Text


@dataclass(frozen=True)
class RewardModel:
    """A sequence classifier with one label, its tokenizer, the name it has in logs, and how its scores are shifted.

    With `bf16`, matrix products are autocast to it. An ensemble is one too: its `model` are `Members`, whose scores are
    shifted by their own rules, and `reduction` makes one of them.
    """

    model: PreTrainedModel | SharedReward | Members
    tokenizer: PreTrainedTokenizerBase
    name: str
    batch_size: int = 64
    normalization: Normalization = Normalization()
    bf16: bool = False
    reduction: Reduction = Reduction()

    @property
    def members(self) -> int:
        """How many scores a completion gets (M)."""
        return len(self.model) if isinstance(self.model, Members) else 1

    @property
    def networks(self) -> Sequence[Any]:
        """The networks behind the scores, the first member's first."""
        return self.model.networks if isinstance(self.model, Members) else (self.model,)

    @property
    def positions(self) -> int:
        """Tokens that a row may have."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else 1 << 30

    def encode(self, prompt: Text, completion: Text, finished: bool) -> list[int]:
        """Encode one prompt with its completion: P + C ids."""
        return encode_prompt(self.tokenizer, prompt) + encode_completion(self.tokenizer, prompt, completion, finished)

    def score(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        finished: Sequence[bool],
        completion_ids: Sequence[Sequence[int]] | None = None,
    ) -> torch.Tensor:
        """Score B completions as text: (B,) float32, on the CPU; the arguments are those of `rows`."""
        return self.score_ids(self.rows(prompts, completions, finished, completion_ids))

    def rows(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        finished: Sequence[bool],
        completion_ids: Sequence[Sequence[int]] | None = None,
    ) -> list[list[int]]:
        """Encode B prompts with their completions: P + C ids each.

        `completion_ids` are the ids as sampled, to be given where the policy has this tokenizer; they are then used
        as they are. Each `finished` tells whether the completion ended by itself.
        """
        if completion_ids is None:
            return [self.encode(*row) for row in zip(prompts, completions, finished, strict=True)]
        encoded = (encode_prompt(self.tokenizer, prompt) for prompt in prompts)
        return [ids + list(sampled) for ids, sampled in zip(encoded, completion_ids, strict=True)]

    def score_ids(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Score B rows of ids, P + C each: (B,) float32, on the CPU."""
        return self.reduction(self.member_scores(rows))

    @torch.no_grad()
    def member_scores(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Score B rows of ids by each member, rows of similar length together: (B, M) float32, on the CPU.

        Raises `ModelError` where a row is longer than the model's positions, as the text of a policy with another
        tokenizer may become.
        """
        longest = max(map(len, rows), default=0)
        if longest > self.positions:
            raise ModelError(
                f"{self.name}: a text of {longest} tokens in its tokenizer, more than its {self.positions} positions; "
                "shorten prompts or completions (in PPO `--max_prompt_tokens`, `--max_completion_length`), or name a "
                "reward model with more positions"
            )
        scores = torch.empty(len(rows), self.members)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            for batch in tqdm(batches, desc="scoring", unit="batch", delay=2, leave=False, disable=None):
                scores[batch] = self._forward([rows[i] for i in batch])
        return (scores - self.normalization.offset) / self.normalization.scale

    def _forward(self, rows: list[Sequence[int]]) -> torch.Tensor:
        """One padded forward pass, (B, P + C) to (B, M); padding is right, where pooling looks for pad tokens."""
        device = self.model.device
        width = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        return torch.as_tensor(logits.float().cpu())


def same_tokenizer(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers give the same ids to the same text: one vocabulary, one EOS, one chat template."""
    return (
        one.get_vocab() == other.get_vocab()
        and one.eos_token_id == other.eos_token_id
        and one.chat_template == other.chat_template
    )
