"""How a dataclass of work travels to the process of a contestant: as JSON on its command line, a folder behind it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

Work = TypeVar("Work")


def write_arguments(work: Any, folder: Path) -> list[str]:
    """Write the command-line arguments that `read_arguments` reads."""
    return [json.dumps(asdict(work)), str(folder)]


def read_arguments(kind: type[Work], argv: Sequence[str], *flags: str) -> tuple[Work, Path, argparse.Namespace]:
    """Read the work, the folder, and switches of the contestant's own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work")
    parser.add_argument("folder", type=Path)
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args(argv)
    return kind(**json.loads(options.work)), options.folder, options
