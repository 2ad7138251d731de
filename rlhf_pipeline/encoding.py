"""Text to token ids, in the one form that every stage sees.

SFT, the reward model, PPO and evaluation all encode through here, so a completion that a policy sampled and the same
completion read from a file are the same ids. The rule for the end: EOS if and only if the completion is finished, since
a reward model must not see an EOS that the policy never produced.

Left out: tools, images, and the loss mask of every assistant turn (the last turn is the completion).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rlhf_pipeline.errors import DataError, ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_pipeline.records import Text

OnLongRow = Literal["error", "skip", "truncate"]

_MARK = "<the content ends here>"


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Text) -> list[int]:
    """Encode a prompt exactly as `trl.GRPOTrainer` does before it generates.

    Plain text gets the tokenizer's own special tokens (BOS where it has one); messages go through the chat template
    with the generation prompt added. Returns P ids. Raises `ModelError` where the template refuses the messages.
    """
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return _ids(tokenizer, _rendered(tokenizer, prompt, add_generation_prompt=True))


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Text, completion: Text, finished: bool = True
) -> list[int]:
    """Encode what follows `encode_prompt(tokenizer, prompt)`: C ids that end with EOS if and only if `finished`.

    Raises `ModelError` where the chat template refuses the messages, or does not extend the prompt by the completion.
    """
    plain = isinstance(prompt, str)
    if isinstance(prompt, str):
        before, text = prompt, _as_text(completion)
    else:
        answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        before = _rendered(tokenizer, prompt, add_generation_prompt=True)
        text = _rendered_after(tokenizer, before, prompt, answer)
        text = text if finished else text.removesuffix(_closing(tokenizer, before, prompt, answer))
    prompt_ids = _ids(tokenizer, before, special=plain)
    together = _ids(tokenizer, before + text, special=plain)
    # else the tokenizer merges across the border of prompt and completion
    extends = together[: len(prompt_ids)] == prompt_ids
    ids = together[len(prompt_ids) :] if extends else _ids(tokenizer, text)
    return _close(tokenizer, ids, finished)


def decode_completion(tokenizer: PreTrainedTokenizerBase, prompt: Text, ids: Sequence[int]) -> str:
    """Decode C ids that were sampled after `encode_prompt(tokenizer, prompt)`: the text that `encode_completion` takes.

    What ids say after their prompt need not be what they say alone: a SentencePiece tokenizer drops the blank that a
    text begins with, so they say "there" where the policy wrote " there". After messages that blank may be their
    template's, and no part of the answer: it is left out, unless only the text with it is encoded into these ids.
    """
    prompt_ids = encode_prompt(tokenizer, prompt)
    alone, before, whole = (_text(tokenizer, some) for some in (ids, prompt_ids, [*prompt_ids, *ids]))
    if not whole.startswith(before):
        return alone
    after = whole.removeprefix(before)
    if after == alone or isinstance(prompt, str):
        return after
    with_blank = _is_encoded_as(tokenizer, prompt, after, ids) and not _is_encoded_as(tokenizer, prompt, alone, ids)
    return after if with_blank else alone


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def _is_encoded_as(tokenizer: PreTrainedTokenizerBase, prompt: Text, text: str, ids: Sequence[int]) -> bool:
    try:
        return encode_completion(tokenizer, prompt, text, finished=False) == list(ids)
    except ModelError:  # the template takes no such answer, so it is none that the policy was trained on
        return False


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = False) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool
) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, tokenize=False))
    except TemplateError as error:
        raise ModelError(
            f"the chat template refuses these messages ({first_line(error)}); change them, or pass another template "
            "with `--chat_template_path file.jinja`"
        ) from error


def _rendered_after(
    tokenizer: PreTrainedTokenizerBase, before: str, prompt: list[dict[str, str]], answer: list[dict[str, str]]
) -> str:
    """What the chat template writes for the answer, after `before`: the prompt with its generation prompt."""
    whole = _rendered(tokenizer, [*prompt, *answer], add_generation_prompt=False)
    if not whole.startswith(before):
        raise ModelError(
            "the chat template renders a prompt differently once the answer follows it, so a completion cannot be told "
            "from its prompt; pass another one with `--chat_template_path file.jinja`"
        )
    return whole[len(before) :]


def _closing(
    tokenizer: PreTrainedTokenizerBase, before: str, prompt: list[dict[str, str]], answer: list[dict[str, str]]
) -> str:
    """What the chat template writes after the content of the last turn; an answer that was cut off never came to it."""
    marked = {**answer[-1], "content": answer[-1]["content"] + _MARK}
    return _rendered_after(tokenizer, before, prompt, [*answer[:-1], marked]).rpartition(_MARK)[2]


def _close(tokenizer: PreTrainedTokenizerBase, ids: list[int], finished: bool) -> list[int]:
    """Take away a closing EOS and the blanks that templates write after it; add EOS if and only if `finished`."""
    eos = _eos(tokenizer)
    if eos in ids:
        last = len(ids) - ids[::-1].index(eos) - 1
        if not str(tokenizer.decode(ids[last + 1 :])).strip():
            ids = ids[:last]
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
    is left) its first characters; completions are never cut. Returns a `LongRow` where the row has to be skipped;
    raises `DataError` naming `where` under "error".
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

    def fits(candidate: Text) -> bool:
        return len(encode_prompt(tokenizer, candidate)) <= room

    if isinstance(prompt, str):
        return _longest_end(prompt, fits)
    head = prompt[:1] if prompt[0]["role"] == "system" and len(prompt) > 1 else []
    turns = prompt[len(head) :]
    for first in range(1, len(turns)):
        if turns[first]["role"] == "user" and fits(head + turns[first:]):
            return head + turns[first:]
    end = _longest_end(turns[-1]["content"], lambda text: fits([*head, {**turns[-1], "content": text}]))
    return None if end is None else [*head, {**turns[-1], "content": end}]


def _longest_end(text: str, fits: Callable[[str], bool]) -> str | None:
    """The longest end of `text`, shorter than it, that fits: by bisection, as a longer end takes more tokens."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(text[middle:]) else (middle + 1, high)
    return text[high:] or None
