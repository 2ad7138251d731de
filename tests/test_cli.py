"""The command line: instant help, one-line errors, honest exit statuses."""

from __future__ import annotations

import ast
import errno
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_pipeline import __version__, cli
from rlhf_pipeline.errors import DataError

HEAVY = ("torch", "transformers", "trl", "datasets", "numpy", "pyarrow", "pydantic", "deepspeed")
PACKAGE = Path(cli.__file__).parent


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], int]], None]:
    """Put a function behind `rlhf sft`."""

    def install(function: Callable[[list[str]], int]) -> None:
        monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=function))

    for name in cli.QUIET:
        monkeypatch.setenv(name, "as it was")
    monkeypatch.delenv("RANK", raising=False)
    return install


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def function(argv: list[str]) -> int:
        raise error

    return function


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rlhf_pipeline.cli import main\n"
        "assert main(['--help']) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_takes_less_than_half_a_second() -> None:
    """Processor time, which a busy machine does not stretch."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    subprocess.run([sys.executable, "-m", "rlhf_pipeline", "--help"], capture_output=True, check=True)
    assert used() - before < 0.5


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.main(["--help"]) == 0
    page = capsys.readouterr().out
    for name, listed in cli.COMMANDS.items():
        assert f"  {name}" in page and listed.summary in page
    assert max(map(len, page.splitlines())) <= 100


def test_every_command_has_a_module_with_main() -> None:
    for listed in cli.COMMANDS.values():
        file = PACKAGE.parent / (listed.module.replace(".", "/") + ".py")
        functions = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
        assert "main" in functions, file
    assert set(cli.ALIASES.values()) <= set(cli.COMMANDS)


def test_arguments_and_status_pass_through(command: Callable[..., None]) -> None:
    seen: list[list[str]] = []

    def function(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    command(function)
    assert cli.main(["sft", "--a", "1"]) == 7
    assert cli.main(["rm"]) == 7
    assert seen == [["--a", "1"], []]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"rlhf {__version__}\n"


@pytest.mark.parametrize(("word", "hint"), [("ppoo", "did you mean `rlhf ppo`"), ("xyzzy", "`rlhf --help` lists")])
def test_unknown_command(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: `{word}` is not a command; {hint}")
    assert captured.out == "" and captured.err.count("\n") == 1


def test_user_error_is_one_line_and_status_2(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(DataError("data/x.jsonl:3: no completion;\n  write one")))
    assert cli.main(["sft"]) == 2
    assert capsys.readouterr().err == "error: data/x.jsonl:3: no completion; write one\n"


def test_other_ranks_say_who_they_are(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    command(raising(DataError("bad row")))
    assert cli.main(["sft"]) == 2
    assert capsys.readouterr().err == "[rank 1] error: bad row\n"


def test_a_bug_keeps_its_traceback(command: Callable[..., None]) -> None:
    command(raising(ZeroDivisionError("bug")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["sft"])
    command(raising(FileNotFoundError(errno.ENOENT, "absent", "x")))
    with pytest.raises(FileNotFoundError):
        cli.main(["sft"])


def test_ctrl_c(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(KeyboardInterrupt()))
    assert cli.main(["sft"]) == 130
    assert capsys.readouterr().err.startswith("stopped;")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space", "artifacts/tmp/x"), "artifacts/tmp/x: the disk is full"),
        (OSError(errno.EROFS, "Read-only", "a"), "a: the folder is read-only"),
        (PermissionError(errno.EACCES, "denied", "a"), "a: permission denied"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "the disk is full"),
    ],
)
def test_disk_errors_are_one_line(
    error: Exception, words: str, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(error))
    assert cli.main(["sft"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {words}") and err.count("\n") == 1


def test_disk_error_inside_another() -> None:
    outer = RuntimeError("could not save")
    outer.__cause__ = OSError(errno.ENOSPC, "No space", "x")
    assert str(cli.storage_error(outer)).startswith("x: the disk is full")
    assert cli.storage_error(RuntimeError("something else")) is None


def test_closed_pipe_is_quiet() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    help_page = [sys.executable, "-m", "rlhf_pipeline", "--help"]
    done = subprocess.run(help_page, stdout=write_end, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_quiet_environment_is_a_default_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "debug")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "x")  # so that monkeypatch restores it
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
    for name in cli.QUIET:
        monkeypatch.setenv(name, os.environ.get(name, cli.QUIET[name]))
    cli.main(["--version"])
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "debug"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_deepspeed_does_not_announce_a_cpu() -> None:
    cli.main(["--version"])
    logger = logging.getLogger("DeepSpeed")
    written = [record for line in ("Setting accelerator to CPU. If", "other") if (record := said(logger, line))]
    assert [record.getMessage() for record in written] == ["other"]


def said(logger: logging.Logger, line: str) -> logging.LogRecord | None:
    """The record of a warning, unless the logger's filters drop it."""
    record = logger.makeRecord(logger.name, logging.WARNING, __file__, 0, line, (), None)
    return record if logger.filter(record) else None
