"""What a manifest records of files, tokenizer, code and packages."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import rlhf_pipeline
from rlhf_pipeline.artifacts import describe
from rlhf_pipeline.errors import ArtifactError


def test_file_entries(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b").write_bytes(b"")
    entries = describe.file_entries(tmp_path, describe.file_names(tmp_path))
    assert list(entries) == ["a", "sub/b"]
    assert entries["a"].size == 3
    assert (
        entries["a"].sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # FIPS 180-2, "abc"
    assert entries["sub/b"].sha256 == hashlib.sha256().hexdigest()


def test_an_empty_folder_cannot_be_published(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing to publish"):
        describe.publishable_files(tmp_path)


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "x.pkl", "last.ckpt"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ArtifactError, match=f"{name} may be a pickle"):
        describe.publishable_files(tmp_path)


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("/elsewhere")
    with pytest.raises(ArtifactError, match="no regular file"):
        describe.publishable_files(tmp_path)


def test_local_origins_become_portable(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": "/home/me/llama", "n": 1}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"name_or_path": "owner/llama"}))
    before = (tmp_path / "tokenizer_config.json").read_bytes()
    describe.make_portable(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"_name_or_path": "llama", "n": 1}
    assert (tmp_path / "tokenizer_config.json").read_bytes() == before


def test_an_adapter_over_a_local_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/home/me/llama"}))
    with pytest.raises(ArtifactError, match="must be an object id or a hub id"):
        describe.make_portable(tmp_path)


def test_adapter_base(tmp_path: Path) -> None:
    assert describe.adapter_base(tmp_path) is None
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/llama"}))
    assert describe.adapter_base(tmp_path) == "owner/llama"


def test_tokenizer_hash_is_of_the_tokenizer_not_of_its_last_call(tmp_path: Path) -> None:
    def hash_of(**fields: object) -> str | None:
        (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
        return describe.tokenizer_hash(tmp_path)

    assert describe.tokenizer_hash(tmp_path) is None
    plain = hash_of(model="a", padding=None, truncation=None)
    assert hash_of(padding={"length": 8}, truncation={"max": 3}, model="a") == plain
    assert hash_of(model="b") != plain


def test_tokenizer_hash_of_vocabulary_files(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    first = describe.tokenizer_hash(tmp_path)
    (tmp_path / "merges.txt").write_text("a b")
    assert first is not None
    assert describe.tokenizer_hash(tmp_path) not in (None, first)


def test_chat_template_hash(tmp_path: Path) -> None:
    assert describe.chat_template_hash(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text("{}")
    assert describe.chat_template_hash(tmp_path) is None
    config.write_text(json.dumps({"chat_template": "{{ x }}"}))
    inline = describe.chat_template_hash(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ x }}")
    config.write_text("{}")
    assert describe.chat_template_hash(tmp_path) == inline  # the same template, wherever it is kept
    (tmp_path / "chat_template.jinja").write_text("{{ y }}")
    assert describe.chat_template_hash(tmp_path) != inline


def test_package_versions() -> None:
    versions = describe.package_versions()
    assert versions["rlhf-pipeline"] == rlhf_pipeline.__version__
    assert {"python", "torch", "transformers", "trl"} <= versions.keys()
    assert "vllm" not in versions or versions["vllm"]


def test_code_revision_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe.code_revision.__wrapped__() == f"version {rlhf_pipeline.__version__}"


def test_code_revision_names_commit_or_version() -> None:
    word, revision = describe.code_revision().split(" ")
    assert word in ("git", "version")
    assert revision
