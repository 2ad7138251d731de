"""Text to token ids, in the one form that every stage sees.

SFT, the reward model, PPO and evaluation all encode through here, so a completion that a policy sampled and the same
completion read from a file are the same ids. The rule for the end: EOS if and only if the completion is finished, since
a reward model must not see an EOS that the policy never produced.

Left out: tools, images, and the loss mask of every assistant turn (the last turn is the completion).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rlhf_pipeline.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_pipeline.records import Text

OnLongRow = Literal["error", "skip", "truncate"]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Text) -> list[int]:
    """Encode a prompt exactly as `trl.GRPOTrainer` does before it generates.

    Plain text gets the tokenizer's own special tokens (BOS where it has one); messages go through the chat template
    with the generation prompt added. Returns P ids.
    """
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return _render(tokenizer, prompt, add_generation_prompt=True)


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Text, completion: Text, finished: bool = True
) -> list[int]:
    """Encode what follows `encode_prompt(tokenizer, prompt)`: C ids that end with EOS if and only if `finished`.

    Raises `ModelError` where the chat template does not extend the prompt's rendering by the completion.
    """
    prompt_ids = encode_prompt(tokenizer, prompt)
    if isinstance(prompt, str):
        text = _as_text(completion)
        together = list(tokenizer(prompt + text)["input_ids"])
    else:
        answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        text = _rendered_after(tokenizer, prompt, answer)
        together = _render(tokenizer, [*prompt, *answer], add_generation_prompt=False)
    if together[: len(prompt_ids)] == prompt_ids:
        ids = together[len(prompt_ids) :]
    else:  # the tokenizer merges across the border of prompt and completion
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return _close(ids, _eos(tokenizer), finished)


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], *, add_generation_prompt: bool
) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=True
    )
    ids: list[int] = encoded["input_ids"]  # type: ignore[call-overload, index, assignment]
    return ids


def _rendered_after(
    tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, str]], answer: list[dict[str, str]]
) -> str:
    """What the chat template writes for the answer, after the prompt with its generation prompt."""
    before = str(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False))
    whole = str(tokenizer.apply_chat_template([*prompt, *answer], add_generation_prompt=False, tokenize=False))
    if not whole.startswith(before):
        raise ModelError(
            "the chat template renders a prompt differently once the answer follows it, so a completion cannot be told "
            "from its prompt; pass another one with `--chat_template_path file.jinja`"
        )
    return whole[len(before) :]


def _close(ids: list[int], eos: int, finished: bool) -> list[int]:
    """End `ids` at its last EOS (templates may write a newline after it), then keep, add or take the EOS."""
    if eos in ids:
        ids = ids[: len(ids) - ids[::-1].index(eos) - 1]
    return [*ids, eos] if finished else ids


def _eos(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no EOS token; name one of its tokens with `--eos_token`")
    return int(tokenizer.eos_token_id)


def _as_text(completion: Text) -> str:
    return completion if isinstance(completion, str) else "".join(str(message["content"]) for message in completion)


@dataclass(frozen=True)
class LongRow:
    """A row that is longer than the stage takes: where it stands, and how long it is in tokens."""

    where: str
    tokens: int
    limit: int

    def __str__(self) -> str:
        return f"{self.where}: {self.tokens} tokens, more than the {self.limit} that fit"


def fit(
    tokenizer: PreTrainedTokenizerBase, prompt: Text, longest: int, room: int, where: str, on_long_row: OnLongRow
) -> Text | LongRow:
    """Fit a prompt, whose longest completion has `longest` ids, into `room` ids in all.

    Returns the prompt, shortened under "truncate": a dialogue loses its oldest turns, plain text (or the one turn that
    is left) its first tokens; completions are never cut. Returns a `LongRow` where the row has to be skipped; raises
    `DataError` naming `where` under "error".
    """
    tokens = len(encode_prompt(tokenizer, prompt)) + longest
    if tokens <= room:
        return prompt
    long_row = LongRow(where, tokens, room)
    if on_long_row == "error":
        raise DataError(f"{long_row}; shorten it, raise the limit, or pass `--on_long_row skip` (or truncate)")
    shorter = None if on_long_row == "skip" else _shorten(tokenizer, prompt, room - longest)
    return long_row if shorter is None else shorter


def _shorten(tokenizer: PreTrainedTokenizerBase, prompt: Text, room: int) -> Text | None:
    """The longest shorter form of `prompt` that takes at most `room` ids, or None where there is none."""
    for candidate in _shorter_forms(tokenizer, prompt, room):
        if len(encode_prompt(tokenizer, candidate)) <= room:
            return candidate
    return None


def _shorter_forms(tokenizer: PreTrainedTokenizerBase, prompt: Text, room: int) -> Iterator[Text]:
    if isinstance(prompt, str):
        yield from _tails(tokenizer, prompt, room)
        return
    head = [prompt[0]] if prompt[0]["role"] == "system" else []
    turns = prompt[len(head) :]
    yield from (head + turns[i:] for i in range(1, len(turns)) if turns[i]["role"] == "user")
    last = turns[-1]
    yield from (head + [{**last, "content": text}] for text in _tails(tokenizer, last["content"], room))


def _tails(tokenizer: PreTrainedTokenizerBase, text: str, room: int) -> Iterator[str]:
    """Ends of a text, from `room` ids down: special tokens and a template around it take some of the room."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for keep in range(min(room, len(ids)), 0, -1):
        yield str(tokenizer.decode(ids[-keep:]))
