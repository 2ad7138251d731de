"""`rlhf doctor`: read the settings, check this machine or all of them, and print what was found.

Exit status 1 where something failed, else 0. Left out: putting anything right.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rlhf_pipeline.config import command_settings
from rlhf_pipeline.errors import LaunchError
from rlhf_pipeline.launch.doctor.findings import exit_status
from rlhf_pipeline.launch.doctor.local import check_machine, read_machine
from rlhf_pipeline.launch.doctor.nodes import check_nodes, place
from rlhf_pipeline.launch.doctor.report import as_json, as_text
from rlhf_pipeline.launch.doctor.settings import DoctorSettings

SUMMARY = (
    "Check packages, accelerators, disk, launch settings and models; each check is pass, warn or fail with its fix."
)
ALSO = """on several machines, typed on each:
  accelerate launch --config_file FILE -m rlhf_pipeline doctor --nodes 2
  srun --nodes 2 --ntasks-per-node 1 rlhf doctor --nodes 2      (with MASTER_ADDR exported)"""


def main(argv: Sequence[str]) -> int:
    """Run `rlhf doctor`; returns the exit status."""
    settings = command_settings(argv, "rlhf doctor", SUMMARY, DoctorSettings, also=ALSO)
    if settings is None:
        return 0
    here = place(os.environ)
    if settings.nodes > 1 and here.world == 1:
        raise LaunchError(
            f"--nodes {settings.nodes}: this doctor is alone; type `accelerate launch --config_file FILE -m "
            f"rlhf_pipeline doctor --nodes {settings.nodes}` on every machine"
        )
    findings = check_nodes(settings, here) if here.world > 1 else check_machine(settings, read_machine())
    if here.rank == 0:
        print(as_json(findings) if settings.json else as_text(findings))
    return exit_status(findings)
