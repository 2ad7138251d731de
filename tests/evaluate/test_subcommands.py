"""`rlhf evaluate`: two words behind one, and `rlhf eval` as it was."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_pipeline import cli
from rlhf_pipeline.evaluate.subcommands import SUBCOMMANDS

ROOT = Path(__file__).parents[2]


def test_help_names_every_subcommand_and_loads_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate"]) == cli.main(["evaluate", "--help"]) == 0
    page = capsys.readouterr().out
    assert all(f"  {name} " in page for name in SUBCOMMANDS)
    code = (
        "import sys\nfrom rlhf_pipeline.cli import main\n"
        "main(['evaluate'])\nassert not {'torch', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_every_subcommand_has_a_main() -> None:
    for module, _ in SUBCOMMANDS.values():
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
        assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_models_is_eval(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["eval", "--help"])
    one = capsys.readouterr().out
    cli.main(["evaluate", "models", "--help"])
    assert capsys.readouterr().out == one


@pytest.mark.parametrize(
    ("word", "hint"), [("rewards", "did you mean `rlhf evaluate reward`"), ("x", "type one of models, reward")]
)
def test_an_unknown_word_is_refused(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", word]) == 2
    assert hint in capsys.readouterr().err
