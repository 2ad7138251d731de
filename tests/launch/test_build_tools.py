"""What DeepSpeed needs to compile on a CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlhf_pipeline.launch.build_tools import build_problem


def tool(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An empty machine."""
    return {"PATH": str(tmp_path / "bin"), "TORCH_EXTENSIONS_DIR": str(tmp_path / "cache")}


def test_both_are_there(tmp_path: Path, environ: dict[str, str]) -> None:
    tool(tmp_path / "bin", "ninja")
    tool(tmp_path / "bin", "c++")
    assert build_problem(environ) is None


def test_ninja_beside_python_and_not_on_path(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's programs are called by path, without activating it."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    assert build_problem(environ) == "ninja is not installed; type `pip install ninja`"
    tool(tmp_path / "venv", "ninja")
    assert build_problem(environ) == f"ninja is not on PATH; type `export PATH={tmp_path / 'venv'}:$PATH`"


def test_compiler_is_needed_once(tmp_path: Path, environ: dict[str, str]) -> None:
    tool(tmp_path / "bin", "ninja")
    assert "no C++ compiler (`c++`); install one" in str(build_problem(environ))
    assert "no C++ compiler (`clang++`)" in str(build_problem({**environ, "CXX": "clang++"}))
    built = tmp_path / "cache" / "py311_cpu" / "deepspeed_shm_comm"
    built.mkdir(parents=True)
    (built / "deepspeed_shm_comm.so").touch()
    assert build_problem(environ) is None
