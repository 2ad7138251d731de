"""Sample completions from a causal language model, and give back the log-probabilities of completions.

Completions are drawn from softmax(logits / temperature) and nothing else: no top-k, top-p or repetition penalty, not
even where a checkpoint's generation_config.json asks for one, since log-probabilities know nothing of them.

Shapes: B rows, P prompt tokens, C completion tokens, K samples a prompt, V vocabulary.
Left out: the loop itself (`decoding`), beams, tools, images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from tqdm import tqdm

from .decoding import decode, evaluating, left_pad, position_ids, stop_ids
from .encoding import decode_completion, encode_prompt
from .errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .records import Text


@dataclass(frozen=True)
class Completion:
    """A completion: its text without special tokens, its ids with the EOS that ended it, and whether one did."""

    text: str
    token_ids: list[int]
    finished: bool


def sample(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    num_return_sequences: int = 1,
    batch_size: int = 256,
) -> list[list[Completion]]:
    """Sample `num_return_sequences` completions of every prompt; temperature 0 is greedy.

    `batch_size` counts completions in flight. A completion ends at any EOS id of the tokenizer or of the checkpoint's
    generation config. Its random numbers depend on `seed` and the prompt's place in `prompts` alone, so another batch
    size draws the same completions (up to float rounding). Raises `ModelError` where prompt and completion exceed the
    model's positions, or where its probabilities are not finite.
    """
    prompt_ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    _check_room(model, prompt_ids, max_new_tokens)
    stops = stop_ids(model, tokenizer)
    token_ids: dict[int, list[list[int]]] = {}
    with evaluating(model) as forward:
        for places in _batches(prompt_ids, max(1, batch_size // num_return_sequences), num_return_sequences):
            ids, mask = left_pad([prompt_ids[i] for i in places], _pad_id(tokenizer), model.device)
            noise = np.stack([_uniforms(seed, i, num_return_sequences, max_new_tokens) for i in places])
            rows, _ = decode(forward, ids, mask, torch.from_numpy(noise).to(ids.device), stops, temperature)
            for n, i in enumerate(places):
                token_ids[i] = rows[n * num_return_sequences : (n + 1) * num_return_sequences]
    return [[_completion(tokenizer, prompt, ids, stops) for ids in token_ids[i]] for i, prompt in enumerate(prompts)]


def logprobs(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    temperature: float,
    *,
    batch_size: int = 64,
) -> list[Tensor]:
    """Compute log softmax(logits / temperature) of every completion token: a (C,) float32 tensor a row, on the CPU."""
    found: dict[int, Tensor] = {}
    rows = [[*prompt, *completion] for prompt, completion in zip(prompt_ids, completion_ids, strict=True)]
    with evaluating(model) as forward:
        for places in _batches(rows, batch_size, 1):
            ids, mask = left_pad([rows[i] for i in places], _pad_id(tokenizer), model.device)
            longest = max(len(completion_ids[i]) for i in places)
            output = forward(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), last=longest + 1)
            all_logprobs = (output.logits[:, :-1].float() / temperature).log_softmax(-1)  # (B, C, V)
            of_tokens = all_logprobs.gather(-1, ids[:, ids.shape[1] - longest :, None]).squeeze(-1).cpu()  # (B, C)
            found.update({i: of_tokens[n, longest - len(completion_ids[i]) :] for n, i in enumerate(places)})
    return [found[i] for i in range(len(rows))]


def placement() -> dict[str, Any]:
    """Options of `from_pretrained` that load a model for inference onto the first GPU, where there is one."""
    return {"device_map": {"": 0}} if torch.cuda.is_available() else {}


def _uniforms(seed: int, place: int, samples: int, length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng([seed, place]).random((samples, length))


def _completion(tokenizer: PreTrainedTokenizerBase, prompt: Text, token_ids: list[int], stops: list[int]) -> Completion:
    finished = token_ids[-1] in stops
    text = decode_completion(tokenizer, prompt, token_ids[:-1] if finished else token_ids)
    return Completion(text, token_ids, finished)


def _batches(rows: Sequence[list[int]], batch_size: int, samples: int) -> Iterator[list[int]]:
    """Places of `rows` in batches of similar length, longest first (so running out of memory shows at once)."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    # delay: short work stays silent; disable=None: only a terminal gets a bar
    with tqdm(total=len(rows) * samples, unit="completion", delay=2, disable=None, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            yield places
            bar.update(len(places) * samples)


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Any id will do under a mask of 0: tokenizers without a pad token are welcome here."""
    return int(tokenizer.pad_token_id or 0)


def _check_room(model: PreTrainedModel | PeftModel, prompt_ids: list[list[int]], max_new_tokens: int) -> None:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, prompt_ids), default=0)
    if any(not ids for ids in prompt_ids):
        raise ModelError("a prompt encodes to no token at all; give it some text, or a tokenizer with a BOS token")
    if positions is not None and longest + max_new_tokens > positions:
        raise ModelError(
            f"the longest prompt has {longest} tokens and --max_new_tokens is {max_new_tokens}, but the model has "
            f"{positions} positions; shorten one of them"
        )
