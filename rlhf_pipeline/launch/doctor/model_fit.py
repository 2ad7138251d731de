"""Whether a checkpoint, its tokenizer, a reward model and a recipe fit together, read from their configurations.

No weights are loaded. Left out: whether they fit in memory; `rlhf plan` works that out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.config import Setting
from rlhf_pipeline.errors import ModelError, RlhfError
from rlhf_pipeline.launch.doctor.findings import Finding, failed, passed, refused, warned
from rlhf_pipeline.launch.doctor.settings import DoctorSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

CHECK = "model"


def check_models(settings: DoctorSettings, recipe: Mapping[str, Setting]) -> list[Finding]:
    """Look at the model that training would start from, and at the reward model where one is named."""
    from rlhf_pipeline.bases import find_checkpoint
    from rlhf_pipeline.models import adapter_base, check_causal, load_config, load_tokenizer

    try:
        store = Store(Path(settings.artifacts))
        start = find_checkpoint(store, settings.model, settings.run)
        config = load_config(adapter_base(store, start) or start)
        check_causal(config, settings.model)
        tokenizer = load_tokenizer(start)
    except RlhfError as error:
        return [refused(CHECK, error)]
    return [
        passed(CHECK, f"{settings.model}: {', '.join(config.architectures or [config.model_type])}"),
        _can_score(config, settings.model),
        _vocabulary(config, tokenizer),
        *_special_tokens(tokenizer),
        *_positions(config, recipe),
        *(_reward(store, settings, tokenizer) if settings.reward else []),
    ]


def _can_score(config: PretrainedConfig, name: str) -> Finding:
    from rlhf_pipeline.models import check_classifier

    try:
        check_classifier(config, name)
    except ModelError as error:
        seen, _, fix = str(error).partition("; ")
        return warned("reward class", seen, fix)
    return passed("reward class", f"transformers has a sequence-classification class for {config.model_type}")


def _vocabulary(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Finding:
    rows, needed = config.get_text_config().vocab_size, 1 + max(tokenizer.get_vocab().values())
    if needed > rows:
        seen = f"the tokenizer has ids up to {needed - 1}, the embeddings {rows} rows"
        return warned("vocabulary", seen, "`rlhf sft` without --use_peft grows them; PPO and LoRA refuse")
    return passed("vocabulary", f"{needed} ids in {rows} rows")


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    from rlhf_pipeline.tokenization import make_fit

    fitted, check = copy.deepcopy(tokenizer), "special tokens"
    try:
        make_fit(fitted)
    except ModelError as error:
        yield refused(check, error)
        return
    if len(fitted) > len(tokenizer):
        seen = f"no pad token apart from EOS {tokenizer.eos_token!r}"
        yield warned(check, seen, "`rlhf sft` without --use_peft adds one; PPO and LoRA refuse")
    else:
        yield passed(check, f"pad {fitted.pad_token!r}, EOS {fitted.eos_token!r}")
    if tokenizer.chat_template is None:
        yield passed("chat template", "none: messages are written as plain text, and the template is saved along")


def _positions(config: PretrainedConfig, recipe: Mapping[str, Setting]) -> Iterator[Finding]:
    from rlhf_pipeline.prepared import room

    positions = room(config, None)
    for setting, tokens in _row_lengths(recipe):
        if tokens > positions:
            seen = f"{setting.where}: rows of {tokens} tokens, and the model has {positions} positions"
            yield failed("positions", seen, f"lower `{setting.name}`")
            return
    yield passed("positions", "no limit" if positions == 1 << 30 else f"{positions}")


def _row_lengths(recipe: Mapping[str, Setting]) -> Iterator[tuple[Setting, Any]]:
    """Yield what a recipe says of the length of a row, in tokens."""
    if "max_length" in recipe and isinstance(recipe["max_length"].value, int):
        yield recipe["max_length"], recipe["max_length"].value
    completion, prompt = recipe.get("max_completion_length"), recipe.get("max_prompt_tokens")
    if completion is not None and isinstance(completion.value, int):
        yield completion, completion.value + (prompt.value if prompt is not None and prompt.value else 1)


def _reward(store: Store, settings: DoctorSettings, tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    from rlhf_pipeline.bases import find_checkpoint
    from rlhf_pipeline.models import check_scorer, load_tokenizer
    from rlhf_pipeline.scoring import same_tokenizer

    try:
        reward = find_checkpoint(store, settings.reward, settings.run)
        check_scorer(reward)
        own = load_tokenizer(reward)
    except RlhfError as error:
        yield refused("reward", error)
        return
    same = same_tokenizer(own, tokenizer)
    seen = "with the policy's tokenizer" if same else "with a tokenizer of its own: completions are tokenised again"
    yield passed("reward", f"{settings.reward}: one score a sequence, {seen}")
