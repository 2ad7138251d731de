"""What the documents point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def named_tests(text: str) -> set[tuple[str, str]]:
    """Every test file that a document names in backticks, with the test in it or an empty name."""
    return set(re.findall(r"`((?:tests/[\w/]*)?test_\w+\.py)(?:::(\w+))?`", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    for file, name in named_tests(document.read_text(encoding="utf-8")):
        path = ROOT / file if file.startswith("tests/") else ROOT / "tests" / "ppo" / file
        assert path.is_file(), f"{document.name} names {file}"
        assert f"def {name}" in path.read_text(encoding="utf-8"), f"{document.name} names {file}::{name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_into_the_repository_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_table_of_details_names_a_test_in_every_row() -> None:
    text = (ROOT / "docs" / "ppo.md").read_text(encoding="utf-8")
    rows = [line for line in text.split("## The details")[1].split("Sources:")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 25
    assert [row for row in rows[1:] if "test" not in row.split("|")[-2]] == []
