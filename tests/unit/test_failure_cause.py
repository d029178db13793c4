"""Causes of death that a console shows: of real programs that die here, and of GPU programs as they print it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpc_agent.clock import SYSTEM
from hpc_agent.domain.failure_cause import failure_cause
from hpc_agent.domain.failure_table import FailureKind

DIES = {
    "exception": (
        "def f(x):\n    raise ValueError(f'bad {x}')\nf(3)\n",
        FailureKind.EXCEPTION,
        "ValueError: bad 3 (program.py, line 2)",
    ),
    "exception without a message": (
        "class Odd(Exception): pass\nraise Odd\n",
        FailureKind.EXCEPTION,
        "Odd (program.py, line 2)",
    ),
    "exception of a library": (
        "import json\n\njson.loads('{')\n",
        FailureKind.EXCEPTION,
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1) "
        "(program.py, line 3)",
    ),
    "the last of several, the first was survived": (
        "import traceback\ntry:\n    import nothing_there\nexcept ImportError:\n    traceback.print_exc()\n{}['key']\n",
        FailureKind.EXCEPTION,
        "KeyError: 'key' (program.py, line 6)",
    ),
    "module": (
        "import nothing_there.deep\n",
        FailureKind.MISSING_MODULE,
        "the Python module nothing_there is not installed; add its package to the task's requirements and enqueue the "
        "task again",
    ),
    "module behind another exception": (
        "try:\n    import nothing_there\nexcept ImportError as e:\n    raise RuntimeError('pip install it') from e\n",
        FailureKind.MISSING_MODULE,
        "the Python module nothing_there",
    ),
    "library": (
        "import ctypes\nctypes.CDLL('libnothing.so.7')\n",
        FailureKind.MISSING_LIBRARY,
        "the library libnothing.so.7 is not on this node; run the task in a container image that has it",
    ),
    "memory": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 28,) * 2)\nb'x' * (1 << 30)\n",
        FailureKind.HOST_MEMORY,
        "out of memory; ask for more with the user property memory_gb",
    ),
    "full disk": (
        "open('/dev/full', 'wb', buffering=0).write(b'x')\n",
        FailureKind.DISK_FULL,
        "no space left on the device; free some space",
    ),
    "name that is not there": (
        "import urllib.request\nurllib.request.urlopen('http://nowhere.invalid')\n",
        FailureKind.NETWORK,
        "the network, or a host in it, cannot be reached from this node; compute nodes often have no way out",
    ),
    "host that is not there": (
        "import requests\nrequests.get('http://nowhere.invalid/model.bin')\n",
        FailureKind.NETWORK,
        "this node cannot resolve the name nowhere.invalid",
    ),
    "port that is closed": (
        "import requests\nrequests.get('http://127.0.0.1:9/model.bin')\n",
        FailureKind.NETWORK,
        "this node has no connection to 127.0.0.1",
    ),
    "git without a network": (
        "import subprocess\nsubprocess.run(['git', 'clone', 'https://nowhere.invalid/r', 'clone'], check=True)\n",
        FailureKind.NETWORK,
        "this node cannot resolve the name nowhere.invalid",
    ),
    "file": (
        "open('/data/train.csv')\n",
        FailureKind.MISSING_FILE,
        "a file is not there: /data/train.csv; give its full path",
    ),
    "syntax": (
        "def f(:\n    pass\n",
        FailureKind.EXCEPTION,
        "SyntaxError: invalid syntax (program.py, line 1)",
    ),
    "arguments": (
        "from argparse import *\np = ArgumentParser()\np.add_argument('--lr', type=float)\np.parse_args(['--lr=x'])\n",
        FailureKind.ARGUMENTS,
        "the script refused its arguments: argument --lr: invalid float value: 'x'; look at the task's section Args",
    ),
    "segmentation fault": (
        "import ctypes\nctypes.string_at(0)\n",
        FailureKind.SIGNAL,
        "crashed with a segmentation fault (SIGSEGV)",
    ),
    "abort": ("import os\nos.abort()\n", FailureKind.SIGNAL, "aborted itself (SIGABRT)"),
    "kill": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
        FailureKind.SIGNAL,
        "killed by SIGKILL; most often memory ran out",
    ),
    "shell": (
        "import os\nos.execvp('bash', ['bash', '-c', 'nothing-there --fast'])\n",
        FailureKind.MISSING_COMMAND,
        "the command nothing-there is not on this node",
    ),
}


@pytest.mark.parametrize(("text", "kind", "sentence"), DIES.values(), ids=DIES)
def test_a_program_that_dies_here(text: str, kind: FailureKind, sentence: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(text)
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        text=True,
        check=False,
        timeout=60,
    )
    cause = failure_cause(done.stdout, done.returncode)
    assert cause is not None, done.stdout
    assert (cause.kind, str(cause)[: len(sentence)]) == (kind, sentence), done.stdout


GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "<string>", line 1, in <module>
  | ExceptionGroup: some (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: first
    +---------------- 2 ----------------
    | ExceptionGroup: inner (1 sub-exception)
    +-+---------------- 1 ----------------
      | OSError: [Errno 28] No space left on device
      +------------------------------------
"""
"""As Python 3.11 prints an exception group."""


def test_the_cause_in_a_group_is_the_innermost() -> None:
    cause = failure_cause(GROUP, 1)
    assert cause is not None and cause.kind is FailureKind.DISK_FULL


WATCHDOG = """\
[rank0]:[E321 02:07:08.408271257 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: \
WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=466119168, NumelOut=466119168, Timeout(ms)=600000) ran for 600060 \
milliseconds before timing out.
[rank0]:[E321 02:07:09.465150152 ProcessGroupNCCL.cpp:621] [Rank 0] Some NCCL operations have failed or timed out.
[rank0]:[E321 02:07:09.465150152 ProcessGroupNCCL.cpp:627] [Rank 0] To avoid data inconsistency, we are taking the \
entire process down.
terminate called after throwing an instance of 'c10::DistBackendError'
  what():  [PG 1 Rank 0] Process group watchdog thread terminated with exception: [Rank 0] Watchdog caught collective \
operation timeout: WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=466119168, NumelOut=466119168, \
Timeout(ms)=600000) ran for 600060 milliseconds before timing out.
Exception raised from checkTimeout at ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:609 (most recent call first):
frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7f3b6d41df86 in torch/lib/libc10.so)
"""
TORCHRUN = """\
Traceback (most recent call last):
  File "/env/bin/torchrun", line 8, in <module>
    sys.exit(main())
  File "/env/lib/python3.11/site-packages/torch/distributed/launcher/api.py", line 245, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 78970)
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
PYTORCH_2 = """\
Traceback (most recent call last):
  File "/home/anna/work/train.py", line 40, in <module>
    loss = model(batch)
  File "/env/lib/python3.11/site-packages/torch/nn/modules/module.py", line 1553, in _wrapped_call_impl
    return self._call_impl(*args, **kwargs)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.00 MiB. GPU 0 has a total capacity of 23.65 GiB of \
which 11.06 MiB is free. Including non-PyTorch memory, this process has 23.60 GiB memory in use. Of the allocated \
memory 22.90 GiB is allocated by PyTorch, and 194.87 MiB is reserved by PyTorch but unallocated.
"""
OTHER_RANK = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "/home/anna/work/train.py", line 41, in <module>
[rank1]:     loss.backward()
[rank1]: torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, \
remote process exited or there was a network error, NCCL version 2.21.5
[rank1]: ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.
[rank1]: Last error:
[rank1]: socketProgressOpt: Call to recv from 172.16.0.4<33759> failed : Connection reset by peer
"""

PRINTED = {
    "PyTorch 2": (
        PYTORCH_2,
        1,
        "CUDA out of memory: 22.00 MiB more did not fit into the GPU's 23.65 GiB; use a smaller batch",
    ),
    "PyTorch 2.0, which spells it otherwise": (
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.70 GiB. GPU 0 has a total capacty of "
        "6.00 GiB of which 0 bytes is free.",
        1,
        "CUDA out of memory: 1.70 GiB more did not fit into the GPU's 6.00 GiB",
    ),
    "PyTorch 1": (
        "RuntimeError: CUDA out of memory. Tried to allocate 2.87 GiB (GPU 0; 14.76 GiB total capacity; 8.77 GiB "
        "already allocated; 19.75 MiB free; 13.71 GiB reserved in total by PyTorch)",
        1,
        "CUDA out of memory: 2.87 GiB more did not fit into the GPU's 14.76 GiB",
    ),
    "JAX": (
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3743729664 "
        "bytes.\nBufferAssignment OOM Debugging.",
        1,
        "out of GPU memory: 3743729664 bytes more did not fit; use a smaller batch",
    ),
    "TensorFlow": (
        "ResourceExhaustedError: OOM when allocating tensor with shape[128,128,109,109] and type float on "
        "/job:localhost/replica:0/task:0/device:GPU:1 by allocator GPU_1_bfc",
        1,
        "out of GPU memory: a tensor of shape [128,128,109,109] did not fit",
    ),
    "the first of several processes": (
        "".join(f"[rank0]: {line}\n" for line in PYTORCH_2.splitlines()) + OTHER_RANK + TORCHRUN,
        1,
        "CUDA out of memory: 22.00 MiB more did not fit into the GPU's 23.65 GiB",
    ),
    "the others only": (
        OTHER_RANK + TORCHRUN,
        1,
        "NCCL error: remote process exited or there was a network error; look at what the other processes printed",
    ),
    "NCCL time-out": (WATCHDOG, -6, "NCCL time-out: ALLREDUCE waited 600 s for another process; look at what"),
    "NCCL time-out under torchrun": (WATCHDOG + TORCHRUN, 1, "NCCL time-out: ALLREDUCE waited 600 s"),
    "NumPy": (
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array with shape (1000000000,)",
        1,
        "out of memory: an array of 7.45 GiB did not fit; ask for more with the user property memory_gb",
    ),
    "data loader": (
        "RuntimeError: DataLoader worker (pid 22048) is killed by signal: Killed. ",
        1,
        "out of memory, most probably: a worker of the data loader was killed",
    ),
    "shared memory": (
        "RuntimeError: DataLoader worker (pid 46794) is killed by signal: Bus error. It is possible that dataloader's "
        "workers are out of shared memory. Please try to raise your shared memory limit.",
        1,
        "out of shared memory (/dev/shm)",
    ),
    "Slurm's own word": (
        "srun: error: n7: task 4: Out Of Memory\nslurmstepd: error: Detected 1 oom_kill event in StepId=11300781.0.",
        137,
        "out of memory; ask for more",
    ),
    "time limit": (
        "slurmstepd: error: *** JOB 52 ON n1 CANCELLED AT 2026-03-01T10:12:13 DUE TO TIME LIMIT ***",
        -15,
        "the job's time limit was reached; ask for more with the user property time_limit",
    ),
    "quota": (
        "OSError: [Errno 122] Disk quota exceeded: '/home/anna/checkpoints/1.pt'",
        1,
        "disk quota exceeded: /home/anna/checkpoints/1.pt; free some space there",
    ),
    "no GPU": (
        "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed",
        1,
        "the program wants a GPU and sees none; ask for one with the user property num_gpus",
    ),
    "wrong build": (
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        1,
        "the installed CUDA build does not fit this node's GPU or driver",
    ),
    "model hub": (
        "huggingface_hub.utils._errors.LocalEntryNotFoundError: An error happened while trying to locate the file on "
        "the Hub and we cannot find the requested files in the local cache.",
        1,
        "the network, or a host in it, cannot be reached from this node",
    ),
    "loader of the system": (
        "./solver: error while loading shared libraries: libcudart.so.12: cannot open shared object file: No such file",
        127,
        "the library libcudart.so.12 is not on this node",
    ),
    "old system": (
        "./solver: /lib64/libc.so.6: version `GLIBC_2.34' not found (required by ./solver)",
        1,
        "the node's system is too old for this program: it has no GLIBC_2.34",
    ),
    "notebook": (
        "\x1b[0;31m---------------------------------------------------------------------------\x1b[0m\n"
        "\x1b[0;31mZeroDivisionError\x1b[0m                         Traceback (most recent call last)\n"
        "Cell \x1b[0;32mIn[1], line 1\x1b[0m\n----> 1 1 / 0\n\n\x1b[0;31mZeroDivisionError\x1b[0m: division by zero\n",
        1,
        "ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize(("console", "code", "sentence"), PRINTED.values(), ids=PRINTED)
def test_what_programs_print(console: str, code: int, sentence: str) -> None:
    cause = failure_cause(f"epoch 1\nepoch 2\n{console}", code)
    assert cause is not None
    assert str(cause)[: len(sentence)] == sentence


def test_what_was_survived_does_not_count() -> None:
    survived = "CUDA out of memory. Tried to allocate 1.00 GiB (GPU 0; 8.00 GiB total capacity)\n"
    later = "".join(f"epoch {number}\n" for number in range(500))
    assert failure_cause(survived + later, 3) is None
    assert failure_cause(PYTORCH_2 + later, 3) is None
    cause = failure_cause(PYTORCH_2 + "epoch 3\n", -11)
    assert cause is not None and "CUDA" in cause.sentence


def test_a_program_that_succeeds_died_of_nothing() -> None:
    assert failure_cause(PYTORCH_2, 0) is None


@pytest.mark.parametrize("console", ["", "epoch 1", "\0\x1b[31m", "Traceback (most recent call last):\n" * 1000])
def test_a_console_that_shows_nothing(console: str) -> None:
    assert failure_cause(console, 3) is None


def test_a_cause_is_one_short_line() -> None:
    cause = failure_cause("Traceback (most recent call last):\nValueError: " + "very " * 1000 + "\nlong", 1)
    assert cause is not None and len(str(cause)) < 300 and "\n" not in str(cause)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a.so",
        "a.b",
        "word ",
        "Watchdog caught collective operation timeout: WorkNCCL(OpType=",
        "CUDA out of memory. Tried to allocate 1 GiB",
        "\x1b[",
        "[rank0]: ",
        "Traceback (most recent call last):\n",
        'File "a", line 1\n',
        "A.B: c\n",
        "NCCL error in: a, ",
    ],
)
def test_long_consoles_are_read_in_one_pass(piece: str) -> None:
    console = piece * ((128 << 10) // len(piece))
    began = SYSTEM.monotonic()
    failure_cause(console, 1)
    failure_cause("Traceback (most recent call last):\n" + console, 1)
    # Milliseconds, on a machine that is not busy; a pattern that is tried again at each place takes minutes.
    assert SYSTEM.monotonic() - began < 20
