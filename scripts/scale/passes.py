"""What one pass costs with many waiting tasks and many jobs: processor time, requests to Slurm, memory.

Each case has a process of its own, because memory is never given back.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc_agent.daemon.loop import collect_garbage_seldom
from scale.memory_site import memory_site
from scale.site import goal

QUEUED, IN_FLIGHT = 10_000, 2_000
CPU_S, REQUESTS, MEMORY_MB = 1.0, 3, 150
GROWTH = 1.5
"""Time for each entry among the most, times that among a hundredth of them: at most."""
PASSES = 5


def passes(counts: Sequence[int]) -> Mapping[str, object]:
    """``counts``: numbers of entries, without jobs, rising by tens."""
    busy = _case(QUEUED, IN_FLIGHT)
    alone = {count: _case(count, 0) for count in counts}
    few, many = counts[-3], counts[-1]
    growth = (alone[many]["cpu_s"] / many) / (alone[few]["cpu_s"] / few)
    label = f"pass over {QUEUED} entries and {IN_FLIGHT} jobs"
    return {
        "busy": busy,
        "by entries": {str(count): found for count, found in alone.items()},
        "goals": [
            goal(f"{label}: processor seconds", busy["cpu_s"], CPU_S),
            goal(f"{label}: requests to Slurm", busy["slurm_requests"], REQUESTS),
            goal(f"{label}: resident MB", busy["rss_mb"], MEMORY_MB),
            goal(f"time for each of {many} entries, times that for each of {few}", growth, GROWTH),
        ],
    }


def _case(waiting: int, running: int) -> Mapping[str, float]:
    code = f"from scale.passes import measure; measure({waiting}, {running})"
    done = subprocess.run([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, check=True)
    found: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(waiting: int, running: int) -> None:
    """Print the median of some passes; the first one, which writes messages, is not counted."""
    collect_garbage_seldom()
    with tempfile.TemporaryDirectory(prefix="passes-") as folder:
        site = memory_site(Path(folder), waiting=waiting, running=running)
        site.daemon.run_pass()
        cpu, requests = [], []
        for _ in range(PASSES):
            before, begun = site.slurm.requests, time.process_time()
            site.daemon.run_pass()
            cpu.append(time.process_time() - begun)
            requests.append(site.slurm.requests - before)
    found = {
        "cpu_s": round(statistics.median(cpu), 4),
        "slurm_requests": max(requests),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(found))
