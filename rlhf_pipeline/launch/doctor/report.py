"""Write findings for people, or as JSON."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rlhf_pipeline.launch.doctor.findings import Finding

WIDTH = 120


def as_text(findings: Sequence[Finding]) -> str:
    """Return one line for each finding, the remedy under it, and the count."""
    column = max(len(finding.check) for finding in findings)
    lines = [line for finding in findings for line in _lines(finding, column)]
    counts = Counter(finding.status for finding in findings)
    return "\n".join([*lines, "", f"{counts['pass']} passed, {counts['warn']} warnings, {counts['fail']} failed"])


def _lines(finding: Finding, column: int) -> Iterator[str]:
    indent = " " * (column + 8)
    where = f"{', '.join(finding.hosts)}: " if finding.hosts else ""
    head = f"{finding.status}  {finding.check:<{column}}  "
    yield from _wrapped(where + finding.seen, head, indent)
    if finding.fix:
        yield from _wrapped(f"-> {finding.fix}", indent, indent + "   ")


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def as_json(findings: Sequence[Finding]) -> str:
    """Return the findings as one JSON object, with the worst status of all."""
    worst = next(status for status in ("fail", "warn", "pass") if any(f.status == status for f in findings))
    return json.dumps({"status": worst, "findings": [asdict(finding) for finding in findings]}, indent=2)
