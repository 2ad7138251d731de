"""Log-probabilities of tokens from hidden states, without logits for more positions than are asked for.

N positions, V vocabulary. Logits exist for a piece of the positions at a time, and not at all between a forward and its
backward pass. Left out: gradients of the entropy, which is a figure here and no part of a loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**25
"""Numbers a piece's logits may have: 128 MiB in float32."""

_FACTORS = ("logit_scale", "output_multiplier", "lm_head_multiplier")
_DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")


class Head:
    """The way from hidden states to logits that a causal language model goes, with its scale and soft cap.

    `in_float32`: run the projection outside autocast, as TRL's `cast_lm_head_to_fp32` asks for.
    """

    def __init__(self, causal_lm: Any, in_float32: bool = False) -> None:
        config = causal_lm.config.get_text_config()
        self.causal_lm = causal_lm
        self.in_float32 = in_float32
        self.vocabulary: int = config.vocab_size
        self.factor = logits_factor(config)
        self.cap = getattr(config, "final_logit_softcapping", None)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the logits of `hidden` (N, width): (N, V)."""
        lm_head = self.causal_lm.get_output_embeddings()  # looked up here: peft may have put another in its place
        if self.in_float32:
            with torch.autocast(hidden.device.type, enabled=False):
                logits: Tensor = lm_head(hidden.float())
        else:
            logits = lm_head(hidden)
        if self.factor != 1.0:
            logits = logits * self.factor
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def token_logprobs(hidden: Tensor, head: Head, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return log softmax(head(hidden) / temperature) of `labels`, and the entropy of every distribution in nats.

    `hidden`: (N, width). `labels`: (N,). Both results: (N,), at least float32.
    """

    def of(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        log_z = logits.logsumexp(-1)
        with torch.no_grad():
            centred = logits - log_z[:, None]
            entropy = -(centred.exp() * centred).sum(-1)
        return logits.gather(1, labels[:, None]).squeeze(1) - log_z, entropy

    rows = max(1, LOGITS_AT_ONCE // head.vocabulary)
    if len(hidden) <= rows:
        return of(hidden, labels)
    pieces = zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True)
    parts = [checkpoint(of, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def logits_factor(config: Any) -> float:
    """What a model multiplies its logits by, behind its head; the keys are those of the architectures' own configs."""
    factor = 1.0
    for name in _FACTORS:
        value = getattr(config, name, None)
        factor *= 1.0 if value is None else float(value)
    for name in _DIVISORS:
        value = getattr(config, name, None)
        if value is not None:  # HyperCLOVA X multiplies by what Granite divides by
            factor *= value if config.model_type == "hyperclovax" else 1 / value
    return factor
