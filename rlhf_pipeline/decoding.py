"""Continue prompts token by token: the loop that sampling for people, evaluation and PPO's rollouts share.

Tokens are drawn from softmax(logits / temperature) and nothing else. The loop is our own because of what it saves over
`model.generate` on the same model: K samples of a prompt share one pass over it, a row that ended leaves the batch, and
keys and values are written in place instead of being copied at every token.

Shapes: B rows, P prompt tokens, C completion tokens, K samples a prompt, V vocabulary.
Left out: beams, filters of the distribution, speculative decoding, models without a key/value cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicLayer

from rlhf_pipeline.errors import ModelError

Forward = Callable[..., Any]


class RoomyLayer(DynamicLayer):
    """A cache layer with room for the tokens to come, written in place; rows that end free their place at the end."""

    keys: Tensor
    values: Tensor

    def __init__(self, layer: DynamicLayer, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        assert layer.keys is not None and layer.values is not None
        self.lazy_initialization(layer.keys, layer.values)
        self._stored = [self._with_room(x, room) for x in (layer.keys, layer.values)]  # (B, heads, P + C, width)
        self._show(*layer.keys.shape[0:3:2])

    @staticmethod
    def _with_room(x: Tensor, room: int) -> Tensor:
        rows, heads, tokens, width = x.shape
        stored = x.new_empty(rows, heads, tokens + room, width)
        stored[:, :, :tokens] = x
        return stored

    def _show(self, rows: int, tokens: int) -> None:
        self.keys, self.values = (x[:rows, :, :tokens] for x in self._stored)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind the old ones; returns all keys and values, (B, heads, tokens, width)."""
        rows, _, tokens, _ = self.keys.shape
        longer = tokens + key_states.size(2)
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[:rows, :, tokens:longer] = new
        self._show(rows, longer)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep `indices` in their order; only rows that change their place are copied."""
        tokens = self.keys.size(2)
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(1)
        for stored in self._stored:
            stored[moved, :, :tokens] = stored[indices[moved], :, :tokens]
        self._show(len(indices), tokens)


def make_room(cache: Cache, tokens: int) -> None:
    """Let every plain layer of `cache` take `tokens` more without copying; other kinds stay as they are."""
    for n, layer in enumerate(getattr(cache, "layers", [])):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[n] = RoomyLayer(layer, tokens)


def decode(
    forward: Forward, ids: Tensor, mask: Tensor, noise: Tensor, stops: Sequence[int], temperature: float
) -> tuple[list[list[int]], list[list[float]]]:
    """Continue left-padded prompts (B, P) by K completions each; `noise` (B, K, C) is uniform in [0, 1).

    Returns B * K lists of ids and of their log-probabilities at `temperature` (zeros where it is 0: greedy), the K of
    one prompt together. The prompt is read once; a row that stopped leaves. `forward` comes from `evaluating`.
    """
    batch, samples, length = noise.shape
    noise = noise.view(batch * samples, length)
    positions = position_ids(mask)
    output = forward(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, last=1)
    cache = output.past_key_values
    if samples > 1:
        cache.batch_repeat_interleave(samples)
    make_room(cache, length)
    logits = output.logits[:, -1].repeat_interleave(samples, 0)  # (B * K, V)
    mask, positions = (x.repeat_interleave(samples, 0) for x in (mask, positions[:, -1:]))
    rows = torch.arange(batch * samples, device=ids.device)
    written = torch.full((batch * samples, length), -1, dtype=torch.long, device=ids.device)
    logprobs = torch.zeros((batch * samples, length), device=ids.device)
    stop = torch.tensor(stops, device=ids.device)
    for step in range(length):
        tokens, logprobs[rows, step] = next_tokens(logits, temperature, noise[rows, step])
        written[rows, step] = tokens
        kept = _going_on(~torch.isin(tokens, stop))
        if step + 1 == length or not len(kept):
            break
        if len(kept) < len(rows):
            cache.batch_select_indices(kept)
            rows, tokens, mask, positions = (x[kept] for x in (rows, tokens, mask, positions))
        mask, positions = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1), positions + 1
        output = forward(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            last=1,
        )
        logits = output.logits[:, -1]
    lengths = (written >= 0).sum(dim=1).tolist()
    ids_and_logprobs = (written.tolist(), logprobs.tolist())
    return tuple([row[:n] for row, n in zip(x, lengths, strict=True)] for x in ids_and_logprobs)  # type: ignore[return-value]


def _going_on(alive: Tensor) -> Tensor:
    """Places of the rows that are not finished, those at the end moved into the gaps: (B,) bool to (rows left,)."""
    places = alive.nonzero().squeeze(1)
    left = len(places)
    stay, move = places[places < left], places[places >= left]
    order = torch.arange(left, device=alive.device)
    gaps = torch.ones(left, dtype=torch.bool, device=alive.device)
    gaps[stay] = False
    order[gaps] = move
    return order


def next_tokens(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the cumulative distribution: `logits` (B, V), `uniform` (B,).

    Returns ids and log-probabilities, both (B,). Raises `ModelError` where the probabilities are not finite.
    """
    if temperature == 0:
        return logits.argmax(-1), torch.zeros(len(logits), device=logits.device)
    probabilities = (logits.float() / temperature).softmax(-1)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not torch.isfinite(total).all():
        raise ModelError("the model's next-token probabilities are not finite: its weights hold NaN or infinity")
    drawn = torch.searchsorted(cumulative, uniform[:, None] * total, right=True).clamp(max=logits.shape[-1] - 1)
    return drawn.squeeze(1), probabilities.gather(1, drawn).log().squeeze(1)


def stop_ids(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every id that ends a completion: the tokenizer's EOS and those of the checkpoint's generation config, sorted."""
    generation_config = model.generation_config
    configured = generation_config.eos_token_id if generation_config is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None})


def left_pad(rows: Iterable[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as one (B, P) tensor that ends together, and its mask: 1 where a token counts."""
    filled = [list(row) for row in rows]
    width = max(len(row) for row in filled)
    ids = torch.tensor([[pad_id] * (width - len(row)) + row for row in filled], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in filled], device=device)
    return ids, mask


def position_ids(mask: Tensor) -> Tensor:
    """Count positions from the first real token: (B, T) mask to (B, T) ids; padding reads as position 0."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


@contextmanager
def evaluating(model: PreTrainedModel | PeftModel) -> Iterator[Forward]:
    """The model's forward pass without dropout and gradients, for models with and without position ids.

    Its `last` is how many positions at the end need logits. Models that know no position ids (ALiBi) read the mask.
    """
    plain = model.get_base_model() if isinstance(model, PeftModel) else model  # adapters sit inside its layers
    known = inspect.signature(plain.forward).parameters
    if "past_key_values" not in known:
        raise ModelError(f"{type(plain).__name__} has no key/value cache to sample with; choose an attention model")

    def forward(*, last: int, position_ids: Tensor, **inputs: Any) -> Any:
        if "position_ids" in known:
            inputs["position_ids"] = position_ids
        return plain(logits_to_keep=last, **inputs)

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield forward
    finally:
        model.train(was_training)
