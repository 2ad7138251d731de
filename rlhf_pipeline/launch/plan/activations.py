"""Bytes of activations that a backward pass needs, of logits, and of keys and values.

The terms are those of Korthikanti et al. 2022 (Reducing Activation Recomputation, section 4.1), without dropout, whose
rates are zero here, and without the attention matrix, which torch's fused attention does not keep; for the gated MLPs,
grouped keys and float32 norms of today's models they are counted anew, and held against what torch keeps. Left out:
mixtures of experts (their dense width is counted), the square of the length that plain (`eager`) attention keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_pipeline.launch.plan.networks import Network

PPO_LOGITS = 2**25
"""Logits that PPO makes at a time (`ppo/logprobs.py`)."""
SFT_TILE = (4096, 32768)
"""Positions and tokens of the vocabulary whose logits TRL's fused language head makes at a time."""


@dataclass(frozen=True)
class Widths:
    """Bytes of a number: `linear` in what matrices multiply, `stream` in the residual stream between blocks."""

    linear: int
    stream: int


def block_bytes(network: Network, widths: Widths, rank: int = 0) -> int:
    """Bytes that one block keeps of one token for its backward pass; `rank` of its LoRA adapters, 0 without.

    A norm keeps its input, RMSNorm in float32 and with the normalised form for its weight's gradient; attention keeps
    queries, keys, values and its result; the MLP what `inner_kept` says. The input of a linear layer is kept where
    its weight is trained: once where several share it, once for each where autocast has to cast it, and once for each
    adapter, which works in float32.
    """
    trained = rank == 0
    norm = (4 + (widths.stream if trained else 0)) if network.rms else widths.stream
    attention = widths.linear * (2 * network.attention + 2 * network.keys)
    mlp = widths.linear * network.inner * (network.inner_kept - (0 if trained or network.inner_kept == 1 else 1))
    shared = 2 if widths.stream == widths.linear else network.entries
    inputs = shared * network.width
    if not trained:
        inputs = sum(projection.inputs + rank for projection in network.projections) // network.layers
    return 2 * norm * network.width + attention + mlp + widths.linear * inputs


def activation_bytes(network: Network, tokens: int, widths: Widths, checkpointing: bool, rank: int = 0) -> int:
    """Bytes that a backward pass over `tokens` needs.

    With checkpointing every block keeps its input, and one block at a time all it needs (Korthikanti et al. 2022,
    section 5: full recomputation).
    """
    block = block_bytes(network, widths, rank)
    if not checkpointing:
        return tokens * network.layers * block
    return tokens * (network.layers * widths.stream * network.width + block)


def logit_bytes(vocabulary: int, positions: int, at_once: int, copies: int) -> int:
    """Bytes of the logits that exist at once: no more than `at_once`, with `copies` bytes for each."""
    rows = min(positions, max(1, at_once // max(vocabulary, 1)))
    return rows * vocabulary * copies


def cache_bytes(network: Network, width: int) -> int:
    """Bytes of keys and values that one token takes in all layers."""
    return 2 * network.layers * network.keys * width


def forward_flops(network: Network, tokens: int, length: int) -> float:
    """FLOPs of a forward pass over `tokens` in rows of `length`: 2 a parameter, and attention.

    Chowdhery et al. 2022 (PaLM), appendix B: 2 N + 4 L (heads x width) T a token, a third of forward and backward.
    """
    return float(tokens) * (2 * network.count + 4 * network.layers * network.attention * length)
