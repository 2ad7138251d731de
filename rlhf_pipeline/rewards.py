"""What a policy is rewarded by: a reward artifact, any sequence classifier with one label, or a Python function.

A reward is named by one text: a role, artifact id, folder or hub id, or `file.py:function`, `package.module:function`.
Finding it loads no model, and no torch. A function is called by keyword, as `function(prompts=, completions=,
completion_ids=, finished=, facts=)`, all lists with one entry a completion, and returns one float each. An ensemble is
named like one reward model, and scores like one.

Left out: the weighted sum (TRL's `reward_weights`), and what ensembles compute (`ensembles`).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.ensemble import member_ids, member_offsets
from rlhf_pipeline.bases import HUB_PREFIX, Checkpoint, find_checkpoint
from rlhf_pipeline.derived import file_hash
from rlhf_pipeline.encoding import decode_completion
from rlhf_pipeline.errors import ConfigError, ModelError, TrainingError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_pipeline.ensembles import Reduction
    from rlhf_pipeline.normalization import Normalization
    from rlhf_pipeline.scoring import RewardModel

RewardFunction = Callable[..., list[float]]
_FUNCTION = re.compile(r"(?P<home>.+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Reward:
    """One reward, found but not loaded: a checkpoint, or a Python function with the hash of its file."""

    name: str
    checkpoint: Checkpoint | None = None
    function: RewardFunction | None = None
    fingerprint: str = ""


def find_reward(store: Store, text: str, run: str) -> Reward:
    """Find what `text` names; raises `ConfigError` for a function that is not there, `ModelError` for a model."""
    match = _FUNCTION.fullmatch(text)
    if match is not None and not text.startswith(HUB_PREFIX):
        module = _module(match["home"], text)
        function = getattr(module, match["name"], None)
        if not callable(function):
            raise ConfigError(f"reward: {match['home']} has no function `{match['name']}`; define it, or name another")
        return Reward(match["name"], function=function, fingerprint=file_hash(Path(str(module.__file__))))
    checkpoint = find_checkpoint(store, text, run)
    return Reward(checkpoint.parent, checkpoint)


def _module(home: str, text: str) -> ModuleType:
    if not home.endswith(".py"):
        try:
            return importlib.import_module(home)
        except ImportError as error:
            raise ConfigError(
                f"reward: {text}: {first_line(error)}; name a file (`rewards.py:function`), or put the package on "
                "PYTHONPATH"
            ) from error
    if not Path(home).is_file():
        raise ConfigError(f"reward: {text}: there is no file {home}; check the path")
    spec = importlib.util.spec_from_file_location(f"reward_{Path(home).stem}", home)
    if spec is None or spec.loader is None:
        raise ConfigError(f"reward: {home} cannot be imported; name a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"reward: {error.filename}:{error.lineno}: {error.msg}; correct it") from None
    except ImportError as error:
        raise ConfigError(f"reward: {home}: {first_line(error)}; install it, or put it on PYTHONPATH") from error
    return module


def members_of(store: Store, checkpoint: Checkpoint) -> list[Checkpoint]:
    """The reward models behind a reward: the members of an ensemble in their order, or the checkpoint alone."""
    members = member_ids(checkpoint.location)
    return [Checkpoint(name, str(store.open(name))) for name in members] or [checkpoint]


def load_reward_model(
    store: Store,
    checkpoint: Checkpoint,
    device: Any,
    *,
    over: Checkpoint | None = None,
    bf16: bool = False,
    reduction: Reduction | None = None,
    **options: Any,
) -> RewardModel:
    """Load a frozen reward model, or all of an ensemble, onto `device`.

    An adapter whose base is `over`, the policy's, shares that with it; adapters of another base share that one. `bf16`
    autocasts; `reduction` makes one score of an ensemble's, by default their mean. Raises `ModelError` where it gives
    no score, or its tokenizer cannot pad.
    """
    from rlhf_pipeline.ensembles import Members, Reduction
    from rlhf_pipeline.models import check_scorer
    from rlhf_pipeline.scoring import RewardModel

    members = members_of(store, checkpoint)
    for member in members:
        check_scorer(member, bool(options.get("trust_remote_code")))
    tokenizer = _scoring_tokenizer(members[0], bool(options.get("trust_remote_code")))
    networks = _load_networks(store, members, device, over=over, bf16=bf16, pad=tokenizer.pad_token_id, **options)
    offsets = member_offsets(checkpoint.location) or [0.0]
    shifts = [
        shift.less(offset)
        for member, offset in zip(members, offsets, strict=True)
        for shift in _normalizations(member, options)
    ]
    if len(shifts) == 1:
        return RewardModel(networks[0], tokenizer, checkpoint.parent, normalization=shifts[0], bf16=bf16)
    joined = Members(networks, [shift.offset for shift in shifts], [shift.scale for shift in shifts])
    return RewardModel(joined, tokenizer, checkpoint.parent, bf16=bf16, reduction=reduction or Reduction())


def _scoring_tokenizer(checkpoint: Checkpoint, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    from rlhf_pipeline.models import load_tokenizer
    from rlhf_pipeline.tokenization import PLAIN_TEMPLATE

    tokenizer = load_tokenizer(checkpoint, trust_remote_code)
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"{checkpoint.location}: its tokenizer has no pad token, so completions of unequal length cannot be scored "
            "together; set `pad_token` in its tokenizer_config.json"
        )
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE
    return tokenizer


def _load_networks(
    store: Store,
    members: Sequence[Checkpoint],
    device: Any,
    *,
    over: Checkpoint | None,
    bf16: bool,
    pad: int,
    **options: Any,
) -> list[Any]:
    """Load the network of every member, in their order; adapters over one base have that once."""
    from rlhf_pipeline.ensembles import OneAdapter
    from rlhf_pipeline.models import adapter_base, add_adapter, load_classifier, reward_heads
    from rlhf_pipeline.ppo.shared import SharedReward, read_adapter

    networks: list[Any] = []
    adapted: dict[tuple[str, int], Any] = {}  # by base and heads: the first adapter's model, which takes up the others
    for member in members:
        base, name = adapter_base(store, member), f"reward_{member.parent}".replace(".", "_")
        if over is not None and base is not None and base.parent == over.parent:
            networks.append(SharedReward(read_adapter(member.location, reward_heads(member)), name))
            continue
        place = None if base is None else (base.parent, reward_heads(member))
        if place in adapted:
            model = adapted[place]
            add_adapter(model, member, name)
            networks.append(OneAdapter(model, name))
        else:
            model = load_classifier(store, member, **options)
            model.config.get_text_config().pad_token_id = pad  # where the pooled token is looked for
            alone = place is None or len(members) == 1
            networks.append(model if alone else OneAdapter(model, "default"))
            if place is not None:
                adapted[place] = model
        model.eval().to(device)
        model.requires_grad_(bf16)  # no gradient is ever taken, but autocast keeps no copies of frozen weights
    return networks


def _normalizations(checkpoint: Checkpoint, options: Mapping[str, Any]) -> list[Normalization]:
    """Read how each head's scores are shifted: in the config.json, which an adapter may have beside it."""
    from rlhf_pipeline.models import adapter_base_name, load_config, reward_heads
    from rlhf_pipeline.normalization import Normalization

    trust = bool(options.get("trust_remote_code"))
    if adapter_base_name(checkpoint.location) is None:
        config = load_config(checkpoint, trust).to_dict()
    else:
        beside = Path(checkpoint.location) / "config.json"
        config = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    return Normalization.of(config, reward_heads(checkpoint, trust))


def load_rewards(
    store: Store,
    rewards: Sequence[Reward],
    tokenizer: PreTrainedTokenizerBase,
    stops: Collection[int],
    device: Any,
    *,
    over: Checkpoint | None = None,
    bf16: bool = False,
    reduction: Reduction | None = None,
    **options: Any,
) -> tuple[list[RewardFunction], list[RewardModel]]:
    """Load every reward as a function for the trainer, in the order asked for; also the reward models behind them."""
    functions: list[RewardFunction] = []
    models: list[RewardModel] = []
    for reward in rewards:
        if reward.checkpoint is None:
            functions.append(function_reward(reward, tokenizer, stops))
        else:
            loading = {"over": over, "bf16": bf16, "reduction": reduction, **options}
            models.append(load_reward_model(store, reward.checkpoint, device, **loading))
            functions.append(model_reward(models[-1], tokenizer, stops))
    return functions, models


def model_reward(model: RewardModel, tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> RewardFunction:
    """Make a reward function of a reward model: on the ids as sampled where it has the policy's `tokenizer`.

    With a tokenizer of its own it gets the text, encoded by its rules. EOS if and only if a token of `stops` ended the
    completion: it was trained on that one, so any other stop token is replaced by it, and is no part of the text. What
    the members of an ensemble disagree by is logged as `ppo/disagreement`.
    """
    from rlhf_pipeline.ensembles import disagreement
    from rlhf_pipeline.scoring import same_tokenizer

    shared, eos = same_tokenizer(model.tokenizer, tokenizer), cast(int, tokenizer.eos_token_id)

    def reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        finished = _finished(completion_ids, stops)
        if shared:
            ended = [[*ids[:-1], eos] if end else ids for ids, end in zip(completion_ids, finished, strict=True)]
            rows = model.rows(prompts, completions, finished, ended)
        else:
            sampled = (ids[:-1] if end else ids for ids, end in zip(completion_ids, finished, strict=True))
            texts = [decode_completion(tokenizer, *row) for row in zip(prompts, sampled, strict=True)]
            rows = model.rows(prompts, texts, finished)
        scores = model.member_scores(rows)
        if log_metric is not None and model.members > 1:
            log_metric("ppo/disagreement", float(disagreement(scores).mean()))
        return [float(score) for score in model.reduction(scores)]

    reward.__name__ = model.name
    return reward


def function_reward(reward: Reward, tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> RewardFunction:
    """Make a reward function of a user's: facts as objects, and whether each completion ended by itself.

    A completion of plain text is what the policy's `tokenizer` makes of it after its prompt: TRL decodes it alone.
    """
    function = reward.function
    if function is None:
        raise ValueError(f"{reward.name} is no function")

    def call(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[list[int]], **columns: Any
    ) -> list[float]:
        facts = [json.loads(text) for text in columns["facts"]]
        finished = _finished(completion_ids, stops)
        texts = [
            decode_completion(tokenizer, prompt, ids) if isinstance(completion, str) else completion
            for prompt, completion, ids in zip(prompts, completions, completion_ids, strict=True)
        ]
        scores = function(
            prompts=prompts, completions=texts, completion_ids=completion_ids, finished=finished, facts=facts
        )
        if len(scores) != len(completions):
            raise TrainingError(
                f"reward {reward.name} gave {len(scores)} scores for {len(completions)} completions; return one each"
            )
        return scores

    call.__name__ = reward.name
    return call


def _finished(completion_ids: Sequence[list[int]], stops: Collection[int]) -> list[bool]:
    return [bool(ids) and ids[-1] in stops for ids in completion_ids]
