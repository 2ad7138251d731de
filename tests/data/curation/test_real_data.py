"""Curation and audit of published data, where REAL_DATA names a folder that holds it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rlhf_pipeline.cli import main

HH = ("data/hh-harmless/harmless-base_test.jsonl.gz", "ranking")
OASST = ("data/oasst-en100/en_100_tree.jsonl", "demonstration")


def real(name: str) -> str:
    folder = os.environ.get("REAL_DATA")
    if not folder:
        pytest.skip("REAL_DATA=<folder with data/hh-harmless and data/oasst-en100> is not set")
    return str(Path(folder) / name)


@pytest.mark.parametrize(("data", "by"), [(HH, "prompt"), (OASST, "conversation")])
def test_what_is_written_passes_the_audit(data: tuple[str, str], by: str, tmp_path: Path) -> None:
    source, kind = real(data[0]), data[1]
    out = str(tmp_path / "out")
    words = ["data", "curate", source, "--kind", kind, "--output", out, "--near_duplicates", "0.8", "--split_by", by]
    assert main([*words, "--eval_fraction", "0.1"]) == 0
    report = json.loads((tmp_path / "out" / "report" / "curation.json").read_text())
    lines = (tmp_path / "out" / "report" / "dropped.jsonl").read_text().splitlines()
    assert report["steps"]["read"]["seen"] == sum(report["written"].values()) + len(lines)
    assert 0.01 < report["written"]["eval.jsonl"] / sum(report["written"].values()) < 0.2
    checks = ["prompt", "near_duplicate", "conversation"]
    assert main(["data", "audit", "--train", f"{out}#train", "--eval", f"{out}#eval", "--check", *checks]) == 0
    assert main(["data", "audit", "--train", source, "--eval", f"{out}#eval"]) == 1
