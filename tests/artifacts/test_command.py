"""`rlhf artifacts` as typed: what it prints, its exit status, and its errors of one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_pipeline import cli
from rlhf_pipeline.artifacts import Store
from tests.artifacts.conftest import Publish
from tests.artifacts.processes import ROOT

Rlhf = Callable[..., str]


@pytest.fixture
def rlhf(store: Store, capsys: pytest.CaptureFixture[str]) -> Rlhf:
    """Run `rlhf artifacts ...` on the store and return what it printed; `status` 2 reads stderr, of one line."""

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert cli.main(["artifacts", *words, "--artifacts", str(store.root)]) == status
        printed = capsys.readouterr()
        if status == 0:
            assert printed.err == ""
            return printed.out
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        return printed.out + printed.err

    return run


@pytest.fixture
def sft(store: Store, publish: Publish) -> str:
    base = publish("base")
    name = publish("sft", base=base)
    store.set_refs("default", {"base": base, "sft": name})
    return name


def test_list(rlhf: Rlhf, store: Store, sft: str, publish: Publish) -> None:
    loose = publish("sft", "loose")
    lines = rlhf("list").splitlines()
    assert len(lines) == 3
    assert next(line for line in lines if line.startswith(sft)).endswith("9 B  default/sft")
    assert next(line for line in lines if line.startswith(loose)).endswith("7 B")
    rows = json.loads(rlhf("list", "--json"))
    assert {row["id"]: row["refs"] for row in rows}[sft] == ["default/sft"]
    assert {row["size"] for row in rows} == {7, 9}


def test_list_an_empty_store(rlhf: Rlhf, store: Store) -> None:
    assert "has no objects; `make demo`" in rlhf("list")
    assert json.loads(rlhf("list", "--json")) == []
    assert not store.root.exists()


def test_list_shows_what_is_damaged(rlhf: Rlhf, store: Store, sft: str) -> None:
    (store.path(sft) / "manifest.json").unlink()
    assert f"{sft}   damaged: see verify" in rlhf("list")


def test_show(rlhf: Rlhf, store: Store, sft: str) -> None:
    lines = rlhf("show", "sft").splitlines()
    assert lines[:3] == [f"path: {store.path(sft)}", f"id: {sft}", "kind: sft"]
    assert "parents:" in lines
    assert json.loads(rlhf("show", sft[:8], "--json"))["id"] == sft


def test_lineage(rlhf: Rlhf, sft: str, tmp_path: Path) -> None:
    assert rlhf("lineage", "sft").startswith(sft)
    assert rlhf("lineage", "default/sft", "--dot").startswith("digraph")
    picture = tmp_path / "lineage.png"
    assert rlhf("lineage", "sft", "--png", str(picture)).strip() == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_verify(rlhf: Rlhf, store: Store, sft: str) -> None:
    assert rlhf("verify").startswith("2 objects of ")
    (store.path(sft) / "config.json").unlink()
    assert "config.json is missing\nerror: 1 problems in 2 objects" in rlhf("verify", status=2)
    assert "error: 1 problems in 1 objects" in rlhf("verify", "sft", status=2)
    assert rlhf("verify", "base").startswith("1 objects of ")


def test_gc(rlhf: Rlhf, store: Store, sft: str, publish: Publish) -> None:
    loose = publish("sft", "loose")
    assert rlhf("gc").startswith(f"{loose}\n1 objects and 0 unfinished folders, ")
    assert loose in store.ids()
    assert rlhf("gc", "--yes").splitlines()[-1].startswith("deleted 1 objects")
    assert sft in store.ids()
    assert loose not in store.ids()


def test_merge_refuses_a_full_model(rlhf: Rlhf, sft: str) -> None:
    assert "is no LoRA adapter" in rlhf("merge", "sft", status=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "reward"], "has no `reward` (it has base, sft); make it with `rlhf reward`"),
        (["show", "sft", "--run", "other"], "run `other`"),
        (["show", "sft", "--run", "../x"], "use letters, digits"),
        (["shw"], "invalid choice: 'shw'"),
        (["show"], "the following arguments are required: name; `rlhf artifacts show --help`"),
        (["gc", "--yess"], "unrecognized arguments: --yess"),
        (["lineage", "sft", "--dot", "--png", "x"], "not allowed with argument"),
    ],
)
def test_mistakes_are_one_line(rlhf: Rlhf, sft: str, words: list[str], message: str) -> None:
    assert message in rlhf(*words, status=2)


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from rlhf_pipeline.artifacts import command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'peft', 'matplotlib', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "usage: rlhf artifacts" in answer.stdout
    assert all(word in answer.stdout for word in ("list", "show", "lineage", "verify", "merge", "gc"))


def test_what_the_package_exports() -> None:
    from rlhf_pipeline import artifacts

    assert artifacts.__all__ == [
        "Manifest",
        "Store",
        "folder_fingerprint",
        "folder_id",
        "import_folder",
        "storage_errors",
    ]
    assert set(artifacts.__all__) <= vars(artifacts).keys()
