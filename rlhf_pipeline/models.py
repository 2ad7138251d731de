"""Load policies and reward models: safetensors only, no remote code unless asked for, LoRA adapters over their base.

Left out: training them (`stages`), scoring with them (`scoring`), and the rules for tokenizers (`tokenization`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
from transformers.utils.logging import disable_progress_bar
from trl import ModelConfig, get_quantization_config
from trl.trainer.reward_trainer import suppress_seqcls_warning

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.artifacts.ensemble import member_ids
from rlhf_pipeline.bases import Checkpoint, find_checkpoint
from rlhf_pipeline.errors import ModelError, first_line
from rlhf_pipeline.sharding import gathered

ADAPTER_CONFIG = "adapter_config.json"
CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
SCORE_HEAD = "score"


def loading_options(model_config: ModelConfig, trust_remote_code: bool = False) -> dict[str, Any]:
    """What `from_pretrained` takes from TRL's ModelConfig: dtype, attention implementation, 4/8-bit quantisation."""
    options: dict[str, Any] = {
        "dtype": model_config.dtype if model_config.dtype in (None, "auto") else getattr(torch, model_config.dtype),
        "trust_remote_code": trust_remote_code,
    }
    if model_config.attn_implementation is not None:
        options["attn_implementation"] = model_config.attn_implementation
    quantization = get_quantization_config(model_config)
    if quantization is not None:
        options["quantization_config"] = quantization
    return options


def load_config(checkpoint: Checkpoint, trust_remote_code: bool = False) -> PretrainedConfig:
    """Read a checkpoint's config.json; raises `ModelError` where this transformers does not know the architecture."""
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            checkpoint.location, revision=checkpoint.revision, trust_remote_code=trust_remote_code
        )
        return config
    except (ValueError, OSError, KeyError, StrictDataclassError) as error:
        raise ModelError(
            f"{checkpoint.location}: its config.json cannot be used ({first_line(error)}); "
            "name a Hugging Face checkpoint of an architecture that the installed transformers knows"
        ) from error


def check_causal(config: PretrainedConfig, name: str) -> None:
    """Raise `ModelError` unless the checkpoint was saved as a causal language model."""
    architectures = config.architectures or []
    if architectures and not any(architecture.endswith(CAUSAL_SUFFIXES) for architecture in architectures):
        raise ModelError(
            f"{name}: holds {', '.join(architectures)}, which is no causal language model; "
            "name a checkpoint that generates text (…ForCausalLM)"
        )


def check_classifier(config: PretrainedConfig, name: str, heads: int = 1) -> None:
    """Raise `ModelError` unless the checkpoint can give one score per sequence, or one for each of `heads`.

    That is a sequence classifier with as many labels, which says that they are `reward_heads` where they are several;
    or a causal language model whose architecture transformers has a sequence-classification class for.
    """
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"{name}: transformers has no sequence-classification class for `{config.model_type}`, so it cannot become "
            "a reward model; start from another checkpoint with `--model` (the policy may keep this architecture)"
        )
    if not _is_classifier(config):
        check_causal(config, name)
    elif config.num_labels != 1 and getattr(config, "reward_heads", 1) != config.num_labels:
        raise ModelError(
            f"{name}: gives {config.num_labels} labels, and a reward is one number; "
            "name a sequence classifier with num_labels = 1"
        )
    elif config.num_labels != heads:
        raise ModelError(
            f"{name}: a reward model with {config.num_labels} heads, and {heads} are asked for; start from a causal "
            f"language model, or pass `--ensemble heads --ensemble_size {config.num_labels}`"
            + (", or leave both out" if config.num_labels == 1 else "")
        )


def check_scorer(checkpoint: Checkpoint, trust_remote_code: bool = False) -> None:
    """Raise `ModelError` unless the checkpoint scores already: a classifier with one label, or an adapter of one.

    One with several labels that are the heads of an ensemble scores too.
    """
    if adapter_base_name(checkpoint.location) is not None:
        task = json.loads((Path(checkpoint.location) / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("task_type")
        holds, scores = f"an adapter for {task}", task == "SEQ_CLS"
    else:
        config = load_config(checkpoint, trust_remote_code)
        check_classifier(config, checkpoint.location, getattr(config, "reward_heads", 1))
        holds, scores = ", ".join(config.architectures or ["no named architecture"]), _is_classifier(config)
    if not scores:
        raise ModelError(
            f"{checkpoint.location}: holds {holds}, which gives no score; train a reward model with `rlhf reward`, "
            "or name a sequence classifier"
        )


def load_tokenizer(checkpoint: Checkpoint, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside a checkpoint; raises `ModelError` where there is none."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            checkpoint.location, revision=checkpoint.revision, trust_remote_code=trust_remote_code
        )
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"{checkpoint.location}: no usable tokenizer beside the model ({first_line(error)}); "
            "save one into that folder with `tokenizer.save_pretrained`"
        ) from error
    return tokenizer


def load_causal(store: Store, checkpoint: Checkpoint, *, trainable: bool = False, **options: Any) -> PreTrainedModel:
    """Load a causal language model, or a LoRA adapter over its base (a `PeftModel`; `trainable` to train on)."""
    adapted = adapter_base(store, checkpoint)
    if adapted is not None:
        return _with_adapter(load_causal(store, adapted, **options), checkpoint, trainable)
    check_causal(load_config(checkpoint, bool(options.get("trust_remote_code"))), checkpoint.location)
    return _load(AutoModelForCausalLM, checkpoint, options)


def reward_heads(checkpoint: Checkpoint, trust_remote_code: bool = False) -> int:
    """How many heads a reward model has: `reward_heads` of its config.json, which an adapter may have beside it."""
    if adapter_base_name(checkpoint.location) is None:
        return int(getattr(load_config(checkpoint, trust_remote_code), "reward_heads", 1))
    beside = Path(checkpoint.location) / "config.json"
    return int(json.loads(beside.read_text(encoding="utf-8")).get("reward_heads", 1)) if beside.is_file() else 1


def load_classifier(
    store: Store, checkpoint: Checkpoint, *, trainable: bool = False, heads: int | None = None, **options: Any
) -> PreTrainedModel:
    """Load a model with one score per sequence; a causal checkpoint gets a fresh head N(0, 1/sqrt(d+1)).

    The head's scale is that of Stiennon et al. 2020 (summarize-from-feedback). `heads` is how many scores it shall
    have, each from a head of its own; None: as many as it has. Raises `ModelError` where the architecture has no such
    class, or where the checkpoint has another number of labels.
    """
    heads = heads or reward_heads(checkpoint, bool(options.get("trust_remote_code")))
    adapted = adapter_base(store, checkpoint)
    if adapted is not None:
        return _with_adapter(load_classifier(store, adapted, heads=heads, **options), checkpoint, trainable)
    config = load_config(checkpoint, bool(options.get("trust_remote_code")))
    check_classifier(config, checkpoint.location, heads)
    with suppress_seqcls_warning():
        model = _load(AutoModelForSequenceClassification, checkpoint, {**options, "num_labels": heads})
    if not _is_classifier(config):
        _reset_head(model)
    return model


def classifier_on_adapter(store: Store, checkpoint: Checkpoint, **options: Any) -> PreTrainedModel:
    """Load the base of a causal model's LoRA adapter as a classifier that goes on with the adapter, and a fresh head.

    Returns a `PeftModel` to train; base and adapter weights are those of the policy, so that both can share the base.
    """
    from peft import (
        LoraConfig,
        get_peft_model,
        get_peft_model_state_dict,
        load_peft_weights,
        set_peft_model_state_dict,
    )

    base = adapter_base(store, checkpoint)
    config = LoraConfig.from_pretrained(checkpoint.location)
    if base is None or config.peft_type != "LORA" or config.modules_to_save:
        raise ModelError(
            f"{checkpoint.parent}: a reward model goes on with a plain LoRA adapter, and this is another kind; type "
            f"`rlhf artifacts merge {checkpoint.parent}` and pass the id it prints with `--model`"
        )
    classifier = load_classifier(store, base, **options)
    config.task_type, config.inference_mode = "SEQ_CLS", False
    config.base_model_name_or_path = classifier.name_or_path
    with _old_names():
        model = get_peft_model(classifier, config)
    fresh = get_peft_model_state_dict(model)  # with the head, which the causal adapter has none of
    set_peft_model_state_dict(model, {**fresh, **load_peft_weights(checkpoint.location)})
    return cast(PreTrainedModel, model)


def _is_classifier(config: PretrainedConfig) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or [])


def _reset_head(model: PreTrainedModel) -> None:
    """Draw a fresh head from a generator of its own: loading draws other random numbers under other launchers."""
    head = getattr(model, SCORE_HEAD)
    generator = torch.Generator().manual_seed(torch.initial_seed())
    fresh = torch.randn(head.out_features, head.in_features, generator=generator) * (head.in_features + 1) ** -0.5
    with torch.no_grad(), gathered([head.weight], write=True):
        head.weight.copy_(fresh)


def _load(auto_class: Any, checkpoint: Checkpoint, options: dict[str, Any]) -> PreTrainedModel:
    if members := member_ids(checkpoint.location):
        raise ModelError(f"{checkpoint.parent} is an ensemble, and one model is needed; name {' or '.join(members)}")
    model: PreTrainedModel
    disable_progress_bar()
    try:
        model, report = auto_class.from_pretrained(
            checkpoint.location,
            revision=checkpoint.revision,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (ValueError, OSError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{checkpoint.location}: cannot be loaded: {first_line(error)}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(SCORE_HEAD))
    if missing:
        raise ModelError(
            f"{checkpoint.location}: {len(missing)} weights are missing ({missing[0]} first), "
            "so it would run on random numbers; fetch or save the checkpoint again"
        )
    return model


def adapter_base_name(folder: str) -> str | None:
    """The name of the base that an adapter folder adapts (an artifact id, or a hub id), or None for a full model."""
    path = Path(folder) / ADAPTER_CONFIG
    if not path.is_file():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: names no base model; save the adapter again with peft's `save_pretrained`"
        ) from error


def adapter_base(store: Store, checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint that an adapter adapts, or None for a full model."""
    name = adapter_base_name(checkpoint.location)
    if name is None:
        return None
    revision = json.loads((Path(checkpoint.location) / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("revision")
    return find_checkpoint(store, name, run="", revision=revision)


def _with_adapter(base: PreTrainedModel, checkpoint: Checkpoint, trainable: bool) -> PreTrainedModel:
    from peft import PeftModel

    with _old_names():
        adapted = PeftModel.from_pretrained(base, checkpoint.location, is_trainable=trainable)
    adapted.active_peft_config.base_model_name_or_path = base.name_or_path  # saving looks there, an id it asks the hub
    return cast(PreTrainedModel, adapted)


def add_adapter(model: Any, checkpoint: Checkpoint, name: str) -> None:
    """Load one more LoRA adapter of the same base, under `name`, into what `load_classifier` made of the first."""
    with _old_names():
        model.load_adapter(checkpoint.location, adapter_name=name)


@contextmanager
def _old_names() -> Iterator[None]:
    """Silence a renaming in transformers that peft (0.21 here) has not followed: remove once it does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield
