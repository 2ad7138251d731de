"""What two processes hold of PPO's four networks in bf16 is what `rlhf plan` counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_pipeline.launch.plan.memory import Ledger
from rlhf_pipeline.launch.plan.roles import read_shapes, stage_roles
from rlhf_pipeline.launch.plan.settings import PlanSettings
from rlhf_pipeline.launch.plan.states import Sharding, partition
from tests.distributed.cluster import Cluster
from tests.e2e.fork_server import ROOT

pytestmark = pytest.mark.distributed

SAYS = "holdings: "
"""What holdings.py begins its line with. It is not imported: read, it changes the trainer of this process."""
REWARDS = ["reward", ROOT / "tests/distributed/holdings.py:nothing"]
SHORT = {"bf16": "true", "use_cpu": "true", "max_steps": 2, "eval_strategy": "no", "guards": "sampler=off"}


def said_holdings(cluster: Cluster, zero: int, root: Path) -> dict[str, dict[str, int]]:
    store = cluster.fresh("live", root)
    settings = {**cluster.settings("live", 2), **SHORT, "reward": REWARDS}
    _, said = cluster.type(store, "ppo", settings, f"zero{zero}")
    [line] = [line for line in said.splitlines() if SAYS in line]
    found: dict[str, dict[str, int]] = json.loads(line.partition(SAYS)[2])
    return found


@pytest.mark.parametrize("zero", [2, 3])
def test_networks_lie_where_the_plan_has_them(cluster: Cluster, zero: int, tmp_path: Path) -> None:
    """Weights and their widths; and to sample, ZeRO-3 has gathered the policy and nothing else."""
    found = said_holdings(cluster, zero, tmp_path / "store")
    planned = PlanSettings(model=str(cluster.folder / "base"), gpus=2)
    roles = stage_roles(planned, read_shapes(planned))
    sharding = Sharding(zero, 2, roles[0].network.width)
    ledger = Ledger(planned, roles, sharding, checkpointing=False)
    for role in roles:
        sizes, precision = role.trained or role.frozen, ledger.precision(role)
        numbers = partition(sizes, sharding) if zero == 3 else sum(sizes)
        assert found[role.name]["numbers"] == numbers, role.name
        assert found[role.name]["width"] == (precision.trained if role.trained else precision.frozen), role.name
    if zero == 3:
        gathered = {part.name: part.bytes for part in ledger.memory().phases["generate"]}["weights gathered to sample"]
        assert gathered == sum(held["whole"] * held["width"] for held in found.values())
