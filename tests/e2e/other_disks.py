"""Run commands on disks that this process mounts, as root of a mount namespace of its own (`unshare`).

Reads from stdin {"root": artifacts folder, "disks": [...], "commands": [[...], ...]}. A disk is "read-only", or the
number of files and folders that can be added. On each one the artifacts folder is copied to it, the commands run, and
what is there then replaces the folder. Prints one JSON report a command, and ends once all of them succeed on a disk.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

from rlhf_pipeline import cli
from rlhf_pipeline.artifacts import Store
from tests.e2e.refusals import contents


def main() -> None:
    """Do what the module says."""
    job = json.load(sys.stdin)
    root = Path(job["root"])
    for disk in job["disks"]:
        aside = root.with_name("aside")
        shutil.copytree(root, aside)
        used = 1 + sum(1 for _ in aside.rglob("*"))
        options = "size=64m" if disk == "read-only" else f"size=64m,nr_inodes={used + disk}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root)], check=True)
        shutil.copytree(aside, root, dirs_exist_ok=True)
        if disk == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        statuses = [run(root, command) for command in job["commands"]]
        shutil.rmtree(aside)
        shutil.copytree(root, aside)
        subprocess.run(["umount", "--lazy", str(root)], check=True)
        shutil.rmtree(root)
        aside.rename(root)
        if not any(statuses):
            return


def run(root: Path, command: list[str]) -> int:
    """Run one command, print what came of it, and return its exit status."""
    before = contents(root)
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        status = cli.main(command)
    after = contents(root)
    report = {
        "status": status,
        "stderr": complained.getvalue(),
        "stdout": said.getvalue(),
        "unchanged": before == after,
        "refs": Store(root).refs(),
    }
    print(json.dumps(report), flush=True)
    return status


if __name__ == "__main__":
    main()
