"""The rules by which any tokenizer is made fit for RLHF, or refused.

| the tokenizer has       | what happens                                                                              |
|-------------------------|-------------------------------------------------------------------------------------------|
| no EOS token            | refused: nothing could end a completion; `--eos_token` names one of its tokens            |
| EOS after every prompt  | refused: a prompt must not end with the token that ends completions                       |
| no pad token            | a spare token becomes pad (`<|pad|>`-like, else unk); else `<|pad|>` is added             |
| pad == EOS              | the same: EOS must stay a token that counts                                               |
| no chat template        | messages are written with `PLAIN_TEMPLATE`, saved with the model; plain text needs none   |

A token that is added grows the embeddings by one row. Under LoRA the base must stay as it is, so there a tokenizer
without a spare token is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_pipeline.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD_TOKEN = "<|pad|>"
SPARE_PAD_TOKENS = (
    "<|finetune_right_pad_id|>",
    "<|pad|>",
    "<pad>",
    "[PAD]",
    "<|padding|>",
    "<|endofpad|>",
    "<|fim_pad|>",
)

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] | trim + eos_token + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n' }}"
    "{% else %}{{ message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Roles as plain words, so that no vocabulary has to grow."""


def make_fit(
    tokenizer: PreTrainedTokenizerBase,
    *,
    eos_token: str | None = None,
    chat_template: str | None = None,
    may_grow: bool = True,
) -> None:
    """Apply the table above to `tokenizer` in place; raises `ModelError` where a rule refuses it.

    `chat_template` is a Jinja file that replaces the tokenizer's own.
    """
    _need_eos(tokenizer, eos_token)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        _need_pad(tokenizer, may_grow)
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE


def _read_template(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"chat_template_path: {file} cannot be read; name a Jinja file") from error


def _need_eos(tokenizer: PreTrainedTokenizerBase, eos_token: str | None) -> None:
    if eos_token is not None:
        if eos_token not in tokenizer.get_vocab():
            raise ModelError(f"eos_token: the tokenizer has no token {eos_token!r}; name one that it has")
        tokenizer.eos_token = eos_token
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the tokenizer has no EOS token, so no completion could end; name one of its tokens with `--eos_token`"
        )
    if tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]:
        raise ModelError(
            "the tokenizer writes EOS after every text, so a prompt would end before it is answered; "
            "set `add_eos_token` to false in its tokenizer_config.json"
        )


def _need_pad(tokenizer: PreTrainedTokenizerBase, may_grow: bool) -> None:
    vocabulary = tokenizer.get_vocab()
    taken = {tokenizer.eos_token, tokenizer.bos_token}
    spare = [token for token in (*SPARE_PAD_TOKENS, tokenizer.unk_token) if token in vocabulary and token not in taken]
    if not spare and not may_grow:
        raise ModelError(
            "the tokenizer has no pad token apart from EOS, and neither LoRA nor PPO may grow the embeddings for one; "
            "start from a checkpoint with a pad token: `rlhf sft` without `--use_peft` makes one"
        )
    if spare:
        tokenizer.pad_token = spare[0]
    else:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})


def match_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the model an embedding row for every token and the tokenizer's special ids; new rows start at the mean."""
    rows: int = model.get_input_embeddings().num_embeddings  # type: ignore[assignment]  # the weight may be shared out
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.config.get_text_config().eos_token_id = tokenizer.eos_token_id
    if model.can_generate():
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.generation_config.eos_token_id = _stop_ids(model.generation_config.eos_token_id, tokenizer.eos_token_id)


def _stop_ids(declared: int | list[int] | None, eos: int) -> int | list[int]:
    """The checkpoint's own stop ids (an end-of-turn token, say) beside the tokenizer's EOS."""
    known = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    stops = [eos, *(stop for stop in known if stop != eos)]
    return stops if len(stops) > 1 else eos
