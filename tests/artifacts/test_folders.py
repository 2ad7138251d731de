"""Importing a local model folder: what is copied, what is refused, and that twice is once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rlhf_pipeline.artifacts import Store, folder_fingerprint, folder_id, import_folder
from rlhf_pipeline.artifacts.verify import verify
from rlhf_pipeline.errors import ArtifactError


def safetensors(numbers: int, name: str = "w") -> bytes:
    """Return a file of one float32 tensor of zeros, in the format's own words: length, header, bytes."""
    header = json.dumps({name: {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * numbers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "_name_or_path": str(tmp_path / "old")}))
    (folder / "model.safetensors").write_bytes(safetensors(5))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("free")
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (folder / "checkpoint-10").mkdir()
    return folder


def test_import(store: Store, folder: Path, tmp_path: Path) -> None:
    name = import_folder(store, folder)
    assert store.manifest(name).kind == "base"
    assert sorted(store.manifest(name).files) == ["LICENSE", "config.json", "model.safetensors", "tokenizer.json"]
    assert json.loads((store.path(name) / "config.json").read_text())["_name_or_path"] == "old"
    assert str(tmp_path) in (folder / "config.json").read_text()  # the user's own file is as it was
    assert verify(store) == []


def test_twice_is_once_wherever_it_lies(store: Store, folder: Path, tmp_path: Path) -> None:
    name = import_folder(store, folder)
    folder.rename(tmp_path / "elsewhere")
    assert import_folder(store, tmp_path / "elsewhere") == name
    assert store.ids() == [name]


def test_folder_id_is_the_id_it_will_have(store: Store, folder: Path) -> None:
    name = folder_id(folder)
    assert not store.root.exists()
    assert import_folder(store, folder) == name


def test_folder_fingerprint_is_of_names_and_content(folder: Path, tmp_path: Path) -> None:
    before = folder_fingerprint(folder)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", before)
    assert folder_fingerprint(folder.rename(tmp_path / "elsewhere")) == before
    (tmp_path / "elsewhere/LICENSE").rename(tmp_path / "elsewhere/NOTICE")
    assert folder_fingerprint(tmp_path / "elsewhere") != before


def test_other_weights_give_another_id(folder: Path) -> None:
    before = folder_id(folder)
    (folder / "model.safetensors").write_bytes(safetensors(6))
    assert folder_id(folder) != before


def test_an_object_of_this_store_is_itself(store: Store, folder: Path) -> None:
    name = import_folder(store, folder)
    assert import_folder(store, store.path(name)) == name
    assert store.ids() == [name]


def test_shards(store: Store, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    files = store.manifest(import_folder(store, folder)).files
    assert {"model-00001-of-00001.safetensors", "model.safetensors.index.json"} <= files.keys()


def test_hub_cache_links_are_followed(store: Store, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    assert not (store.path(import_folder(store, folder)) / "model.safetensors").is_symlink()


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def list_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def lose_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(safetensors(5)[:-1])


def cut_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(safetensors(5)[:20])


def lose_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "model-2.safetensors"}}))


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_config, "has no config.json; name the folder"),
        (break_config, "config.json is not JSON .*; copy or download it again"),
        (list_config, "config.json is a JSON list, not an object"),
        (lose_weights, "has no model.safetensors; name the folder"),
        (pickle_weights, "pytorch_model.bin is pickled and may run code when loaded; convert it"),
        (cut_weights, r"model.safetensors has \d+ bytes, its header says \d+; copy or download"),
        (cut_header, "model.safetensors is not a safetensors file"),
        (lose_shard, "model-2.safetensors is missing, but model.safetensors.index.json names it"),
        (adapter, "holds a LoRA adapter; merge it into its base first"),
    ],
)
def test_what_is_no_whole_model_is_refused(store: Store, folder: Path, change, message: str) -> None:
    change(folder)
    for attempt in (lambda: folder_id(folder), lambda: import_folder(store, folder)):
        with pytest.raises(ArtifactError, match=message):
            attempt()
    assert not store.root.exists()


def test_no_folder(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a folder; name a folder with config.json"):
        import_folder(store, tmp_path / "nowhere")
