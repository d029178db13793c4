"""A task that dies of something known says so: one sentence and a next step, in its console and its status reason."""

from __future__ import annotations

import pytest
from e2e_site import Site

from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

CUDA = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.00 MiB. GPU 0 has a total capacity of 23.65 GiB "
    "of which 11.06 MiB is free."
)
NCCL = (
    "[rank0]:[E321 02:07:08.408271257 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=466119168, NumelOut=466119168, Timeout(ms)=600000) ran for 600060 "
    "milliseconds before timing out."
)
"""In the words of PyTorch: these nodes have no GPUs."""
CODE = "worker execution exit code 1"
ENDED_BY = "worker execution was ended by"
DIES = {
    "import nothing_there": f"{CODE}: the Python module nothing_there is not installed; "
    "add its package to the task's requirements and enqueue the task again",
    "for step in range(20000): print('step', step)\nraise ValueError('loss is nan')": f"{CODE}: "
    "ValueError: loss is nan (bare.py, line 2)",
    "open('/dev/full', 'wb', buffering=0).write(b'x')": f"{CODE}: no space left on the device; "
    "free some space there, or write elsewhere",
    "import ctypes\nctypes.string_at(0)": f"{ENDED_BY} SIGSEGV: crashed with a segmentation fault "
    "(SIGSEGV), in compiled code; run it with PYTHONFAULTHANDLER=1 to see where; packages that do not fit together are "
    "the usual cause",
    "import ctypes\nctypes.CDLL('libnothing.so.1')": f"{CODE}: the library libnothing.so.1 is not on this node; "
    "run the task in a container image that has it, or load the site's module in the job template",
    "import socket\nsocket.create_connection(('no-such-host.invalid', 80))": f"{CODE}: "
    "the network, or a host in it, cannot be reached from this node; compute nodes often have no way out: fetch it "
    "beforehand, or set the site's proxy in hpc.job_environment",
    "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)": f"{ENDED_BY} SIGKILL: killed by SIGKILL; "
    "most often memory ran out: ask for more with the user property memory_gb; else another user killed it",
    f"import sys\nsys.exit({CUDA!r})": f"{CODE}: CUDA out of memory: "
    "22.00 MiB more did not fit into the GPU's 23.65 GiB; use a smaller batch, or a GPU with more memory",
    f"import os, sys\nprint({NCCL!r}, file=sys.stderr, flush=True)\nos.abort()": f"{ENDED_BY} SIGABRT: "
    "NCCL time-out: ALLREDUCE waited 600 s for another process; look at what the other processes printed last: one of "
    "them died, hangs or lags behind",
}


def test_what_a_task_died_of_is_in_its_console_and_its_reason(site: Site) -> None:
    tasks = {site.bare_task(text): reason for text, reason in DIES.items()}
    site.daemon()
    for task, reason in tasks.items():
        assert site.wait_for_end(task) is TaskStatus.FAILED
        assert site.reason(task) == reason
        assert site.lines(task)[-1] == f"Process failed: {reason}"
