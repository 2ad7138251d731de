"""Merge a LoRA adapter into its base, and publish the full model that results.

The base is resolved in the same store, or on the hub at the commit that the adapter names; an adapter over an adapter
is merged from the bottom up. Left out: quantised bases (merging into rounded weights loses what was learned).
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_pipeline.artifacts.describe import ADAPTER_CONFIG, adapter_base
from rlhf_pipeline.artifacts.ensemble import member_ids
from rlhf_pipeline.artifacts.folders import TOKENIZER_FILES
from rlhf_pipeline.artifacts.manifest import OBJECT_ID, digest
from rlhf_pipeline.artifacts.store import Store
from rlhf_pipeline.errors import ArtifactError, ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def merge(store: Store, name: str, run: str, role: str) -> str:
    """Publish the adapter `name` merged into its base, point `role` of `run` to it, and return its id.

    ArtifactError where `name` is no adapter, or its base is neither in the store nor a hub id.
    """
    adapter = store.open(name)
    base = adapter_base(adapter)
    if members := member_ids(adapter):
        raise ArtifactError(
            f"{name} is an ensemble; type `rlhf artifacts merge` for each of {', '.join(members)}, and "
            "`rlhf artifacts ensemble` with the ids it prints"
        )
    if base is None:
        raise ArtifactError(f"{name} is no LoRA adapter: it is a full model already, at {adapter}")
    key = digest(["merge", name])
    with store.lock(run, "merge") as lock:
        lock.reads([name, *([base] if OBJECT_ID.fullmatch(base) else [])])
        found = store.find(key)
        merged = found[0] if found else _publish(store, name, adapter, key)
        store.set_refs(run, {role: merged})
    return merged


def _publish(store: Store, name: str, adapter: Path, key: str) -> str:
    manifest = store.manifest(name)
    model = _load_merged(store, adapter)
    store.require_space(model.num_parameters() * model.dtype.itemsize, f"{name} merged into its base")
    with store.staging() as staged:
        model.save_pretrained(staged)
        _copy_tokenizer(store, adapter, staged)
        return store.publish(
            staged,
            kind=manifest.kind,
            parents={"adapter": name},
            input_key=key,
            config=manifest.config,
            data=manifest.data,
            metrics=manifest.metrics,
        )


def _base_location(store: Store, adapter: Path) -> tuple[str, str | None]:
    """Return what `from_pretrained` takes for the base of `adapter`: a folder or hub id, and a revision."""
    settings = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base = str(settings["base_model_name_or_path"])
    if OBJECT_ID.fullmatch(base):
        return str(store.open(base)), None
    location, _, commit = base.removeprefix("hub:").partition("@")
    return location, commit or settings.get("revision")


def _load_merged(store: Store, adapter: Path) -> PreTrainedModel:
    """Load the base of `adapter` (merged, where it is an adapter itself) and merge `adapter` into it."""
    from peft import PeftModel

    location, revision = _base_location(store, adapter)
    if (Path(location) / ADAPTER_CONFIG).is_file():
        base = _load_merged(store, Path(location))
    else:
        base = _load_base(adapter, location, revision)
    with warnings.catch_warnings():  # remove once peft (0.21 here) follows the renaming in transformers
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        merged: PreTrainedModel = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    return merged


def _load_base(adapter: Path, location: str, revision: str | None) -> PreTrainedModel:
    """Load the base in the class the adapter was trained on, with the adapter's own config.json where it has one."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    task = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("task_type")
    classes: dict[str, Any] = {"CAUSAL_LM": AutoModelForCausalLM, "SEQ_CLS": AutoModelForSequenceClassification}
    if task not in classes:
        raise ArtifactError(f"{adapter / ADAPTER_CONFIG}: task_type {task!r}; merge knows {' and '.join(classes)}")
    options: dict[str, Any] = {"num_labels": 1} if task == "SEQ_CLS" else {}
    if (adapter / "config.json").is_file():
        options = {"config": AutoConfig.from_pretrained(adapter)}
    try:
        model: PreTrainedModel = classes[task].from_pretrained(
            location, revision=revision, dtype="auto", use_safetensors=True, **options
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{location}: the base of {adapter} cannot be loaded ({first_line(error)}); "
            "go online once where it is a hub model, and type the same command again"
        ) from error
    return model


def _copy_tokenizer(store: Store, adapter: Path, staged: Path) -> None:
    """Copy the tokenizer of the adapter; where it has none, that of what it adapts."""
    if (adapter / "tokenizer_config.json").is_file():
        for path in (path for pattern in TOKENIZER_FILES for path in adapter.glob(pattern)):
            shutil.copyfile(path, staged / path.name)
        return
    location, revision = _base_location(store, adapter)
    if Path(location).is_dir():
        _copy_tokenizer(store, Path(location), staged)
    else:
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(location, revision=revision).save_pretrained(staged)
