"""Bring a local Hugging Face model folder into the store as an object of kind "base".

Copied are weights (safetensors only), configuration, tokenizer and licence; trainer states and pickles stay behind.
Left out: deciding which stages the architecture can serve in.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_pipeline.artifacts.describe import ADAPTER_CONFIG, file_entries, portable_json
from rlhf_pipeline.artifacts.manifest import FileEntry, content_id, digest
from rlhf_pipeline.artifacts.storage import storage_errors
from rlhf_pipeline.artifacts.store import Store
from rlhf_pipeline.errors import ArtifactError

_INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template.jinja",
    "chat_template.json",
)
_MODEL_FILES = ("*.safetensors", _INDEX, "config.json", "generation_config.json", "*.py", "LICENSE*", "NOTICE*")
_CONVERT = (
    'convert it in an environment you trust it in: python -c "from transformers import AutoModelForCausalLM as A; '
    "A.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\", and copy its tokenizer files beside"
)


def folder_id(folder: Path | str) -> str:
    """Return the id that `import_folder` gives the model in `folder`; writes nothing, raises the same errors."""
    entries = _entries(Path(folder))
    return content_id("base", entries, {}, _input_key(entries))


def import_folder(store: Store, folder: Path | str) -> str:
    """Publish the model in `folder` and return its id; the same content gives the same id, and is copied once.

    A folder that already is an object of this store is that object. ArtifactError where the folder holds no whole
    model in safetensors.
    """
    folder = Path(folder)
    if folder.absolute().parent == store.objects.absolute():
        return store.open(folder.name).name
    entries = _entries(folder)
    key = _input_key(entries)
    if known := store.find(key):
        return known[0]
    store.require_space(sum(entry.size for entry in entries.values()), f"a copy of {folder}")
    with store.staging() as staged:
        for name in entries:
            shutil.copyfile(folder / name, staged / name)
        return store.publish(staged, kind="base", parents={}, input_key=key, config={}, data={}, metrics={})


def folder_fingerprint(folder: Path | str) -> str:
    """Return the hash of all files in `folder` (a tokenizer, say): "sha256:" and 64 hex digits."""
    folder = Path(folder)
    with storage_errors(f"{folder}: cannot read"):
        entries = file_entries(folder, {path.name for path in folder.iterdir() if path.is_file()})
    return f"sha256:{digest({name: entry.sha256 for name, entry in entries.items()})}"


def _input_key(entries: Mapping[str, FileEntry]) -> str:
    return digest(["import", {name: entry.sha256 for name, entry in entries.items()}])


def _entries(folder: Path) -> dict[str, FileEntry]:
    """Return the files to publish from `folder`, as they will be in the object."""
    with storage_errors(f"{folder}: cannot read"):
        entries = file_entries(folder, _model_files(folder))
        for name in sorted(entries):
            content = portable_json(folder / name) if name.endswith("config.json") else None
            if content is not None:
                entries[name] = FileEntry(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return entries


def _model_files(folder: Path) -> set[str]:
    """Return the names to copy; ArtifactError where something is missing or cut short."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder; name a folder with config.json and model.safetensors")
    names = {
        path.name for pattern in (*_MODEL_FILES, *TOKENIZER_FILES) for path in folder.glob(pattern) if path.is_file()
    }
    if "config.json" not in names:
        raise ArtifactError(f"{folder} has no config.json; name the folder of a Hugging Face model")
    for name in sorted(name for name in names if name.endswith(".json")):
        _read_json(folder / name)
    if (folder / ADAPTER_CONFIG).exists():
        raise ArtifactError(f"{folder} holds a LoRA adapter; merge it into its base first (peft: merge_and_unload)")
    shards = _shards(folder, names)
    for name in shards:
        _check_safetensors(folder / name)
    return {name for name in names if not name.endswith(".safetensors")} | shards


def _shards(folder: Path, names: set[str]) -> set[str]:
    """Return the weight files of the model: those its index names, else model.safetensors."""
    if _INDEX in names:
        shards = set(_read_json(folder / _INDEX).get("weight_map", {}).values())
        if missing := sorted(shards - names):
            raise ArtifactError(f"{folder / missing[0]} is missing, but {_INDEX} names it; copy it")
        return shards
    if "model.safetensors" in names:
        return {"model.safetensors"}
    if pickles := sorted(path.name for path in folder.glob("*.bin")):
        convert = _CONVERT.format(folder=folder)
        raise ArtifactError(f"{folder / pickles[0]} is pickled and may run code when loaded; {convert}")
    raise ArtifactError(f"{folder} has no model.safetensors; name the folder of a Hugging Face model")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); copy or download it again") from None
    if not isinstance(fields, dict):
        raise ArtifactError(f"{path} is a JSON {type(fields).__name__}, not an object; copy or download it again")
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
