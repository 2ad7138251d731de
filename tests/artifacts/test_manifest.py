"""Ids, keys and seals of manifests, and that nothing in them is true on one machine only."""

from __future__ import annotations

import dataclasses
import enum
import json
from pathlib import Path

import numpy as np
import pytest

from rlhf_pipeline.artifacts.manifest import FileEntry, Manifest, content_id, portable, read_manifest
from rlhf_pipeline.errors import ArtifactError

FILES = {"config.json": FileEntry(2, "ab" * 32)}


def make_manifest(**changes: object) -> Manifest:
    fields = {
        "id": content_id("sft", FILES, {"base": "base-000000000000"}, "key"),
        "kind": "sft",
        "parents": {"base": "base-000000000000"},
        "input_key": "key",
        "files": FILES,
        "config": {"learning_rate": 1e-5},
        "data": {},
        "metrics": {"sft/loss_nats": 1.5},
        "tokenizer": None,
        "chat_template": None,
        "code": "git 0",
        "packages": {},
        "created": "2026-01-01T00:00:00+00:00",
        "extra": {},
    }
    return Manifest(**{**fields, **changes})


def write(folder: Path, text: str) -> Path:
    (folder / "manifest.json").write_text(text)
    return folder


def test_round_trip(tmp_path: Path) -> None:
    manifest = make_manifest()
    assert read_manifest(write(tmp_path, manifest.to_json())) == manifest
    assert manifest.content_id() == manifest.id
    assert manifest.size == 2


@pytest.mark.parametrize(
    ("kind", "files", "parents", "key"),
    [
        ("reward", FILES, {"base": "b"}, "key"),
        ("sft", {"config.json": FileEntry(3, "ab" * 32)}, {"base": "b"}, "key"),
        ("sft", {"config.json": FileEntry(2, "ac" * 32)}, {"base": "b"}, "key"),
        ("sft", {"other.json": FileEntry(2, "ab" * 32)}, {"base": "b"}, "key"),
        ("sft", FILES, {"base": "c"}, "key"),
        ("sft", FILES, {"sft": "b"}, "key"),
        ("sft", FILES, {"base": "b"}, "other"),
    ],
)
def test_the_id_depends_on_all_that_it_stands_for(
    kind: str, files: dict[str, FileEntry], parents: dict[str, str], key: str
) -> None:
    assert content_id(kind, files, parents, key) != content_id("sft", FILES, {"base": "b"}, "key")


def test_the_id_does_not_depend_on_order() -> None:
    one, two = FileEntry(1, "01"), FileEntry(2, "02")
    assert content_id("sft", {"a": one, "b": two}, {}, "k") == content_id("sft", {"b": two, "a": one}, {}, "k")


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/me/rows.jsonl", "rows.jsonl"),
        ("/home/me/model/", "model"),
        ("~/rows.jsonl", "rows.jsonl"),
        ("C:\\data\\rows.jsonl", "rows.jsonl"),
        ("file:///home/me/rows.jsonl", "rows.jsonl"),
        (Path("/home/me/rows.jsonl"), "rows.jsonl"),
        ("/home/me/reward.py:score", "reward.py:score"),
        ("data/rows.jsonl", "data/rows.jsonl"),
        ("owner/name", "owner/name"),
        ("/", "/"),
        ({"a": ["/x/y", ("/x/z",)]}, {"a": ["y", ["z"]]}),
        ({2, 1}, [1, 2]),
        (float("nan"), None),
        (float("inf"), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (True, True),
        (None, None),
        (Colour.RED, "Colour.RED"),
    ],
)
def test_portable(value: object, expected: object) -> None:
    assert portable(value) == expected
    assert type(portable(value)) is type(expected)


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest.json does not exist; `rlhf artifacts list`"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", '{"seal": "x"}'])
def test_not_a_manifest(tmp_path: Path, text: str) -> None:
    with pytest.raises(ArtifactError, match="damaged: not a manifest; type `rm -rf"):
        read_manifest(write(tmp_path, text))


def test_a_changed_field_breaks_the_seal(tmp_path: Path) -> None:
    fields = json.loads(make_manifest().to_json())
    fields["metrics"]["sft/loss_nats"] = 0.1
    with pytest.raises(ArtifactError, match="does not match its seal"):
        read_manifest(write(tmp_path, json.dumps(fields)))


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    later = dataclasses.replace(make_manifest(), version=2)
    with pytest.raises(ArtifactError, match="has format 2, this program reads 1; upgrade"):
        read_manifest(write(tmp_path, later.to_json()))
