"""Write so that a crash leaves the old or the new file, and say in one line what a disk refused.

Left out: retries. A full or read-only disk stops the command; the same command continues later.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_pipeline.errors import RlhfError, StorageError

_FREE_SPACE = "free some space (`rlhf artifacts gc --yes` deletes what no run uses) and type the same command again"
_MAKE_WRITABLE = "make it accessible to this user, or name another folder with --artifacts"
_CHECK_DISK = "check the path and the disk behind it"
_NEXT_STEP = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "raise the limit on the size of a file (`ulimit -f`) and type the same command again",
    errno.EROFS: _MAKE_WRITABLE,
    errno.EACCES: _MAKE_WRITABLE,
    errno.EPERM: _MAKE_WRITABLE,
    errno.ENOTDIR: _CHECK_DISK,
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EIO: _CHECK_DISK,
    errno.ESTALE: _CHECK_DISK,
}
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers report the errno
_TORCH_ERRORS = ("PytorchStreamWriter failed writing", "unexpected pos")  # torch.save on a full disk names no errno


def refusal(error: BaseException) -> int | None:
    """Return the errno with which the disk refused, or None where `error` is about something else."""
    if isinstance(error, RlhfError):
        return None
    if isinstance(error, OSError):
        return error.errno if error.errno in _NEXT_STEP else None
    if match := _RUST_ERROR.search(str(error)):
        return int(match[1]) if int(match[1]) in _NEXT_STEP else None
    return errno.ENOSPC if any(words in str(error) for words in _TORCH_ERRORS) else None


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn a disk's refusal inside the block into a StorageError that opens with `doing`; let all else pass."""
    try:
        yield
    except Exception as error:
        code = refusal(error)
        if code is None:
            raise
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        raise StorageError(f"{doing}: {os.strerror(code)}{where}; {_NEXT_STEP[code]}") from error


def readable_size(size: float) -> str:
    """Write `size` in bytes the way disks are sold: 1 kB = 1000 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def nearest_folder(root: Path) -> Path:
    """Return `root`, or the nearest folder above it that exists; StorageError where no store can be at `root`."""
    refused, path = f"{root} cannot be an artifact store", root.absolute()
    with storage_errors(refused):
        while not _is_there(path):
            path = path.parent
    if not path.is_dir():
        raise StorageError(f"{refused}: {path} is no folder; name another one with --artifacts")
    return path


def _is_there(path: Path) -> bool:
    """Tell whether a folder, a file or a link has this name; unlike `Path.exists`, other errors are raised."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def require_space(folder: Path, size: int, what: str) -> None:
    """Raise StorageError unless the disk under `folder` (which need not exist yet) has `size` bytes free for `what`."""
    free = shutil.disk_usage(nearest_folder(folder)).free
    if free < size:
        raise StorageError(
            f"{folder}: {what} needs {readable_size(size)} and {readable_size(free)} are free; {_FREE_SPACE}, "
            "or name a folder on another disk with --artifacts"
        )


def sync(path: Path) -> None:
    """Flush one file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, then `folder` itself."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def write_atomic(path: Path, text: str) -> None:
    """Replace the text of `path` so that a reader sees the old or the new; one writer at a time."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)
