"""Whether a port can still be taken on this machine.

Left out: finding a free one; `main_process_port: 0` lets accelerate do that.
"""

from __future__ import annotations

import os
import socket


def port_problem(port: int) -> str | None:
    """Say why rank 0 could not listen on `port` of this machine, or return None where it could."""
    if not 1 <= port <= 65535:
        return f"{port} is no port; ports are 1 to 65535"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch does: a closing connection is no owner
        try:
            probe.bind(("", port))
        except OSError as error:
            return f"port {port} cannot be used on {socket.gethostname()}: {os.strerror(error.errno or 0)}"
    return None
