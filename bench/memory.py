"""The cost of pending timers: memory, disk, and the time of a restart."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench import timers
from bench.figures import progress
from bench.server import Server, running
from bench.sink import Sink

COUNT = 100_000
WARM_UP = 2_000
READS = 40_000
SETTLE_S = 3.0
"""How long the server may finish its work before its memory is read."""

MEBI = 1024 * 1024
_LINUX = sys.platform == "linux"
KIND = "PSS" if _LINUX else "RSS"
"""PSS divides shared pages among the processes that share them; RSS counts them for each."""


def measure(sink: Sink) -> dict[str, Any]:
    """Return memory without and with pending timers, bytes on disk for each, restart time.

    Threads take memory when they first work. So the empty server is measured twice: fresh, and
    after timers were set and purged. The cost of a timer is the difference to the second figure.
    """
    with running() as server:
        fresh = used_bytes(server.pid)
        # The warm-up uses every thread and fills the caches, which are not a cost of timers.
        progress(f"memory with no and with {COUNT} pending timers")
        timers.create(server.port, WARM_UP, seconds=timers.HOUR, url=sink.url)
        timers.purge(server.port)
        time.sleep(SETTLE_S)
        empty = used_bytes(server.pid)
        took_s = timers.create(server.port, COUNT, seconds=timers.HOUR, url=sink.url)
        time.sleep(SETTLE_S)
        full = used_bytes(server.pid)
        timers.read_at_random(server.port, range(WARM_UP + 1, WARM_UP + COUNT + 1), READS)
        read = used_bytes(server.pid)
        return {
            "kind": KIND,
            "pending_timers": COUNT,
            "fresh_mib": round(fresh / MEBI, 1),
            "empty_after_work_mib": round(empty / MEBI, 1),
            "with_timers_mib": round(full / MEBI, 1),
            f"after_{READS}_random_reads_mib": round(read / MEBI, 1),
            "bytes_per_timer": round((full - empty) / COUNT, 1),
            "created_per_second": round(COUNT / took_s, 1),
            **_restart(server),
        }


def _restart(server: Server) -> dict[str, Any]:
    progress("restart")
    stop_s = server.stop()
    on_disk = sum(file.stat().st_size for file in server.data_dir.glob("timers.db*"))
    start_s = server.start(f"/timers/{WARM_UP + 1}")
    return {
        "disk_bytes_per_timer": round(on_disk / COUNT, 1),
        "stop_s": round(stop_s, 3),
        "restart_s": round(start_s, 3),
    }


class _Process(NamedTuple):
    parent: int
    rss_bytes: int


def used_bytes(root: int) -> int:
    """Return the memory of the process ``root`` and its descendants."""
    processes = _processes()
    tree = _tree(processes, root)
    if _LINUX:
        return sum(_pss_bytes(pid) for pid in tree)
    return sum(processes[pid].rss_bytes for pid in tree)


def _processes() -> dict[int, _Process]:
    """Return every process of this machine by its id."""
    listed = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True
    )
    rows = (map(int, line.split()) for line in listed.stdout.splitlines())
    return {pid: _Process(parent, rss_kib * 1024) for pid, parent, rss_kib in rows}


def _tree(processes: Mapping[int, _Process], root: int) -> list[int]:
    tree = [root]
    for pid in tree:  # grows while it is read, until no process has further children
        tree.extend(child for child, process in processes.items() if process.parent == pid)
    return tree


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
