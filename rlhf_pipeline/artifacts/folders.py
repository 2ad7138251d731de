"""Bring a local Hugging Face model folder into the store as an object of kind "base".

Copied are weights (safetensors only), configuration, tokenizer and licence; trainer states and pickles stay behind.
Left out: deciding which stages the architecture can serve in.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rlhf_pipeline.artifacts.describe import file_entries
from rlhf_pipeline.artifacts.manifest import digest
from rlhf_pipeline.artifacts.storage import storage_errors
from rlhf_pipeline.artifacts.store import Store
from rlhf_pipeline.errors import ArtifactError

_PATTERNS = (
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template.jinja",
    "chat_template.json",
    "*.py",
    "LICENSE*",
    "NOTICE*",
)
_CONVERT = (
    'convert it in an environment you trust it in: python -c "from transformers import AutoModelForCausalLM as A; '
    "A.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\", and copy its tokenizer files beside"
)


def import_folder(store: Store, folder: Path | str) -> str:
    """Publish the model in `folder` and return its id; the same content gives the same id, and is copied once.

    A folder that already is an object of this store is that object. ArtifactError where the folder holds no whole
    model in safetensors.
    """
    folder = Path(folder)
    if folder.absolute().parent == store.objects.absolute():
        return store.open(folder.name).name
    with storage_errors(f"{folder}: cannot read"):
        names = _model_files(folder)
        entries = file_entries(folder, names)
    key = digest(["import", {name: entry.sha256 for name, entry in entries.items()}])
    if known := store.find(key):
        return known[0]
    store.require_space(sum(entry.size for entry in entries.values()), f"a copy of {folder}")
    with store.staging() as staged:
        for name in entries:
            shutil.copyfile(folder / name, staged / name)
        source = {"source_folder": folder.absolute().name}
        return store.publish(staged, kind="base", parents={}, input_key=key, config=source, data={}, metrics={})


def _model_files(folder: Path) -> set[str]:
    """Return the names to copy; ArtifactError where something is missing or cut short."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder; name a folder with config.json and model.safetensors")
    names = {path.name for pattern in _PATTERNS for path in folder.glob(pattern) if path.is_file()}
    if "config.json" not in names:
        raise ArtifactError(f"{folder} has no config.json; name the folder of a Hugging Face model")
    for name in sorted(name for name in names if name.endswith(".json")):
        _read_json(folder / name)
    if (folder / "adapter_config.json").exists():
        raise ArtifactError(f"{folder} holds a LoRA adapter; merge it into its base first (peft: merge_and_unload)")
    shards = _shards(folder, names)
    for name in shards:
        _check_safetensors(folder / name)
    return {name for name in names if not name.endswith(".safetensors")} | shards


def _shards(folder: Path, names: set[str]) -> set[str]:
    """Return the weight files of the model: those its index names, else model.safetensors."""
    if "model.safetensors.index.json" in names:
        shards = set(_read_json(folder / "model.safetensors.index.json")["weight_map"].values())
        if missing := sorted(shards - names):
            raise ArtifactError(f"{folder / missing[0]} is missing, but model.safetensors.index.json names it; copy it")
        return shards
    if "model.safetensors" in names:
        return {"model.safetensors"}
    if pickles := sorted(path.name for path in folder.glob("*.bin")):
        convert = _CONVERT.format(folder=folder)
        raise ArtifactError(f"{folder / pickles[0]} is pickled and may run code when loaded; {convert}")
    raise ArtifactError(f"{folder} has no model.safetensors; name the folder of a Hugging Face model")


def _read_json(path: Path) -> dict[str, dict[str, str]]:
    try:
        fields: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); copy or download it again") from None
    return fields


def _check_safetensors(path: Path) -> None:
    """Raise ArtifactError unless the file is as long as its own header says (a broken download is not)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(length) if length < size else b"")
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ArtifactError(f"{path} is not a safetensors file; copy or download it again") from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise ArtifactError(f"{path} has {size} bytes, its header says {expected}; copy or download it again")
