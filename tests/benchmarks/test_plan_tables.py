"""The tables of docs/plan.md are those that the command prints today."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.plan_tables import COLUMNS, LLAMA_2, main

DOCUMENT = Path(__file__).parents[2] / "docs" / "plan.md"


def test_the_document_holds_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    printed = capsys.readouterr().out.strip()
    assert printed in DOCUMENT.read_text(encoding="utf-8"), "paste what `python -m benchmarks.plan_tables` prints"
    rows = [line for line in printed.splitlines() if line.startswith(tuple(f"| {name} on " for name in LLAMA_2))]
    assert len(rows) == 2 * 3 * len(LLAMA_2)
    assert all(row.count("|") == 2 + len(COLUMNS) for row in rows)
