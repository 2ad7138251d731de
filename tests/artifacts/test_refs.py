"""Refs: several roles move together, however the move ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_pipeline.artifacts import refs as refs_module
from rlhf_pipeline.artifacts.refs import Refs
from rlhf_pipeline.errors import ArtifactError


@pytest.fixture
def refs(tmp_path: Path) -> Refs:
    return Refs(tmp_path / "refs", tmp_path / "locks")


def test_no_refs(refs: Refs, tmp_path: Path) -> None:
    assert refs.runs() == []
    assert refs.of("default") == {}
    assert list(tmp_path.iterdir()) == []


def test_a_ref_is_one_line(refs: Refs, tmp_path: Path) -> None:
    refs.move("default", {"sft": "sft-1"})
    assert (tmp_path / "refs/default/sft").read_text() == "sft-1\n"
    assert [path.name for path in (tmp_path / "refs/default").iterdir()] == ["sft"]


def test_a_move_leaves_other_roles_and_runs_alone(refs: Refs) -> None:
    refs.move("a", {"base": "1", "sft": "2"})
    refs.move("b", {"base": "3"})
    refs.move("a", {"sft": "4"})
    assert refs.of("a") == {"base": "1", "sft": "4"}
    assert refs.of("b") == {"base": "3"}
    assert refs.runs() == ["a", "b"]


def test_a_move_that_was_announced_counts_and_is_completed(refs: Refs, tmp_path: Path) -> None:
    refs.move("default", {"policy": "p1", "critic": "c1", "sft": "s"})
    (tmp_path / "refs/default/.pending").write_text(json.dumps({"policy": "p2", "critic": "c2"}))
    (tmp_path / "refs/default/policy").write_text("p2\n")  # killed after the first of two
    assert refs.of("default") == {"policy": "p2", "critic": "c2", "sft": "s"}
    refs.move("default", {"sft": "t"})
    assert (tmp_path / "refs/default/critic").read_text() == "c2\n"
    assert refs.of("default") == {"policy": "p2", "critic": "c2", "sft": "t"}


def test_a_reader_never_sees_half_a_move(refs: Refs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the refs before each of the writes that a move consists of."""
    refs.move("default", {"policy": "p1", "critic": "c1"})
    write, seen = refs_module.write_atomic, []

    def look_then_write(path: Path, text: str) -> None:
        seen.append(refs.of("default"))
        write(path, text)

    monkeypatch.setattr(refs_module, "write_atomic", look_then_write)
    refs.move("default", {"policy": "p2", "critic": "c2"})
    old, new = {"policy": "p1", "critic": "c1"}, {"policy": "p2", "critic": "c2"}
    assert seen == [old, new, new]


def test_a_move_that_goes_by_during_a_read_is_read_again(refs: Refs, monkeypatch: pytest.MonkeyPatch) -> None:
    refs.move("default", {"policy": "p1", "critic": "c1"})
    read, torn = refs_module._read, {2: {"policy": "p1", "critic": "c2"}}
    calls: list[Path] = []

    def second_read_is_torn(folder: Path) -> dict[str, str]:
        calls.append(folder)
        return torn.get(len(calls)) or read(folder)

    monkeypatch.setattr(refs_module, "_read", second_read_is_torn)
    assert refs.of("default") == {"policy": "p1", "critic": "c1"}


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".pending", "a b"])
def test_names_that_would_leave_the_folder_are_refused(refs: Refs, name: str) -> None:
    with pytest.raises(ArtifactError, match="use letters, digits"):
        refs.move(name, {"sft": "x"})
    with pytest.raises(ArtifactError, match="use letters, digits"):
        refs.move("default", {name: "x"})
