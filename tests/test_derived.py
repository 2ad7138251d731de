"""A derived file is answered only by the same inputs and the same bytes."""

from __future__ import annotations

import json

import pytest

from rlhf_pipeline.derived import is_answered, write_derived
from rlhf_pipeline.errors import StorageError


def test_the_same_inputs_answer_and_others_do_not(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    inputs = {"seed": 1, "model": "sft-0123"}
    assert not is_answered(path, inputs)
    write_derived(path, "text\n", inputs)
    assert path.read_text() == "text\n"
    assert is_answered(path, dict(reversed(inputs.items())))
    assert not is_answered(path, {**inputs, "seed": 2})


def test_a_touched_or_removed_file_is_derived_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_derived(path, "text\n", {})
    path.write_text("other\n")
    assert not is_answered(path, {})
    path.unlink()
    assert not is_answered(path, {})


def test_killed_between_the_two_files_it_is_not_answered(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_derived(path, "one\n", {"n": 1})
    first = (tmp_path / "rows.jsonl.inputs.json").read_text()
    write_derived(path, "two\n", {"n": 2})
    (tmp_path / "rows.jsonl.inputs.json").write_text(first)  # as if killed before the second file was replaced
    assert not is_answered(path, {"n": 1})
    assert not is_answered(path, {"n": 2})
    assert json.loads(first)["inputs"] == {"n": 1}


def test_a_disk_that_refuses_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_derived(tmp_path / "file" / "folder" / "rows.jsonl", "", {})
