"""Every error a user can cause, as one small tree.

    RlhfError            exit status 2, one line, never a traceback
    ├── ConfigError      a setting is unknown, of the wrong type or contradicts another   (also a ValueError)
    ├── DataError        a row cannot be used as it is                                    (also a ValueError)
    ├── ArtifactError    an artifact is missing, damaged, busy or does not fit            (also a ValueError)
    ├── ModelError       a checkpoint or tokenizer cannot serve in this stage             (also a ValueError)
    ├── LaunchError      processes were started in a way that cannot work                 (also a RuntimeError)
    ├── StorageError     the disk is full, read-only or gone                              (also an OSError)
    ├── TrainingError    training cannot go on: NaN, a guard that stops                   (also a RuntimeError)
    └── Interrupted      asked to stop by SIGTERM: saved, goes on later; exit status 75

A message says what was seen, where (file and line, or config key) and what to type next.
"""

from __future__ import annotations


class RlhfError(Exception):
    """Something the user can put right; `exit_code` is the process status it ends with."""

    exit_code = 2


class ConfigError(RlhfError, ValueError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(RlhfError, ValueError):
    """A row or a data set cannot be used as it is."""


class ArtifactError(RlhfError, ValueError):
    """An artifact is missing, damaged, busy, or does not fit the stage."""


class ModelError(RlhfError, ValueError):
    """A checkpoint or its tokenizer cannot serve in this stage."""


class LaunchError(RlhfError, RuntimeError):
    """Processes were started in a way that cannot work."""


class StorageError(RlhfError, OSError):
    """The disk is full, read-only or gone."""


class TrainingError(RlhfError, RuntimeError):
    """Training cannot go on: a NaN, or a guard that stops the run."""


class Interrupted(RlhfError):
    """Training was asked to stop and has saved a checkpoint; 75 is EX_TEMPFAIL, "try again later", of sysexits.h."""

    exit_code = 75


def first_line(error: BaseException) -> str:
    """The first line of a library's message, to quote inside one of ours; with the next where it ends in a colon."""
    lines = str(error).splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
