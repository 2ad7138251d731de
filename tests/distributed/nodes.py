"""Two nodes on one machine: a network namespace and a host name each, with a cable (veth) between them.

A node's fork server lives in its namespace, and all that is started there sees nothing but that cable; both ends of it,
and the namespaces, are gone with the servers. Needs Linux and root: `skip_reason` says what lacks.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from tests.distributed.launches import launch_file
from tests.e2e.fork_server import ForkServer

CABLE = "cable"
"""The name of the network interface, on both nodes."""
IN_A_NODE = 'hostname "$0" && ip link set lo up && exec "$@"'


def address(number: int) -> str:
    """The address of node `number`."""
    return f"10.77.0.{number + 1}"


def skip_reason() -> str:
    """What lacks for two nodes, or nothing."""
    lacking = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if sys.platform != "linux" or lacking:
        return f"two nodes are network namespaces: Linux with {', '.join(lacking) or 'ip, unshare and nsenter'}"
    tried = subprocess.run(
        ["unshare", "--net", "--uts", "ip", "link", "add", CABLE, "type", "veth"], capture_output=True, text=True
    )
    return f"network namespaces need root: {tried.stderr.strip()}" if tried.returncode else ""


class Nodes:
    """Both nodes, connected, and one command at a time on each."""

    def __init__(self, folder: Path) -> None:
        """Start them; what they print goes to files in `folder`, and launch files lie there."""
        self.folder = folder
        self._before = [0, 0]
        in_node = ["env", f"GLOO_SOCKET_IFNAME={CABLE}", "unshare", "--net", "--uts", "sh", "-c", IN_A_NODE]
        self.servers = [ForkServer(folder / f"node{n}.txt", prefix=[*in_node, f"node-{n}"]) for n in (0, 1)]
        one, other = (server.process.pid for server in self.servers)
        self._ip(0, "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", str(other))
        for number in (0, 1):
            self._ip(number, "address", "add", f"{address(number)}/24", "dev", CABLE)
            self.plug(number)

    def plug(self, number: int, *, out: bool = False) -> None:
        """Connect a node to the cable again; or pull it `out`: packets are lost, and nobody is told."""
        self._ip(number, "link", "set", CABLE, "down" if out else "up")

    def start(self, words: list[str], mode: str) -> None:
        """Type one command on both nodes, under the launch file of `mode`."""
        for number, server in enumerate(self.servers):
            self._before[number] = len(server.output.read_text())
            server.start(words, launch=str(self._launch_file(mode, number)))

    def statuses(self, timeout: float) -> list[int]:
        """Wait for both commands; their exit statuses."""
        return [server.status(timeout) for server in self.servers]

    def kill(self, number: int) -> None:
        """End everything that the command of a node started, at once."""
        os.killpg(self.servers[number].child, signal.SIGKILL)

    def said(self, number: int) -> str:
        """What a node has printed since the command was typed."""
        return self.servers[number].output.read_text()[self._before[number] :]

    def stop(self) -> None:
        """End the servers, and with them the nodes."""
        for server in self.servers:
            server.stop()

    def _launch_file(self, mode: str, number: int) -> Path:
        """The launch file of one node: that of two processes on one, and where the nodes meet."""
        content = yaml.safe_load(launch_file(mode, self.folder).read_text())
        content |= {
            "num_machines": 2, "machine_rank": number, "main_process_ip": address(0), "main_process_port": 29500,
            "rdzv_backend": "static", "same_network": True,
        }  # fmt: skip
        if "deepspeed_config" in content:
            content["deepspeed_config"]["deepspeed_multinode_launcher"] = "standard"
        file = self.folder / f"{mode}-node{number}.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    def _ip(self, number: int, *words: str) -> None:
        pid = str(self.servers[number].process.pid)
        subprocess.run(["nsenter", "--net", "--target", pid, "ip", *words], check=True)
