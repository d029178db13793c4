"""Table of what programs print when they die of a known cause: pattern → sentence and next step.

A new cause is one row here and one sample of what is really printed in tests/unit/test_failure_cause.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec


class FailureKind(Enum):
    """What a program died of; the values are stable, for programs that read them."""

    GPU_MEMORY = "gpu-memory"
    SHARED_MEMORY = "shared-memory"
    HOST_MEMORY = "host-memory"
    TIME_LIMIT = "time-limit"
    DISK_FULL = "disk-full"
    MISSING_MODULE = "missing-module"
    MISSING_LIBRARY = "missing-library"
    MISSING_COMMAND = "missing-command"
    MISSING_FILE = "missing-file"
    NO_PERMISSION = "no-permission"
    NO_GPU = "no-gpu"
    GPU_ERROR = "gpu-error"
    NETWORK = "network"
    COLLECTIVE = "collective"
    """One process of several waited for another (NCCL)."""
    ARGUMENTS = "arguments"
    EXCEPTION = "exception"
    SIGNAL = "signal"


class FailureCause(msgspec.Struct, frozen=True):
    """Cause of a program's death."""

    kind: FailureKind
    sentence: str
    """What happened, without a full stop."""
    advice: str = ""
    """The next step; empty where none is known."""

    def __str__(self) -> str:
        return f"{self.sentence}; {self.advice}" if self.advice else self.sentence


_LONGEST_QUOTE = 200


class _Rule(msgspec.Struct, frozen=True):
    kind: FailureKind
    pattern: re.Pattern[str]
    sentence: str
    """With the pattern's named groups in braces."""
    advice: str = ""


def _rule(kind: FailureKind, pattern: str, sentence: str, advice: str = "") -> _Rule:
    return _Rule(kind, re.compile(pattern), sentence, advice)


_SMALLER_BATCH = "use a smaller batch, or a GPU with more memory"
_MORE_MEMORY = "ask for more with the user property memory_gb"
_MORE_TIME = "ask for more with the user property time_limit"
_FREE_SPACE = "free some space there, or write elsewhere"
_ADD_PACKAGE = "add its package to the task's requirements and enqueue the task again"
_NODE_NETWORK = (
    "compute nodes often have no way out: fetch it beforehand, or set the site's proxy in hpc.job_environment"
)
_OTHER_RANKS = "look at what the other processes printed last: one of them died, hangs or lags behind"
RUN_IN_IMAGE = "run the task in a container image that has it, or load the site's module in the job template"

_TABLE = (
    # GPU memory: PyTorch 1 and 2 (with its "capacty"), JAX, TensorFlow, CuPy, CUDA itself.
    _rule(
        FailureKind.GPU_MEMORY,
        r"(?:CUDA|HIP) out of memory\. Tried to allocate (?P<more>[\d.]+ \w+).*?"
        r"(?:total capaci?ty of (?P<all>[\d.]+ \w+)|; (?P<all_1>[\d.]+ \w+) total capacity)",
        "CUDA out of memory: {more} more did not fit into the GPU's {all}",
        _SMALLER_BATCH,
    ),
    _rule(
        FailureKind.GPU_MEMORY,
        r"RESOURCE_EXHAUSTED: Out of memory (?:while trying to allocate|allocating) (?P<more>[\d.]+ ?\w+)",
        "out of GPU memory: {more} more did not fit",
        _SMALLER_BATCH,
    ),
    _rule(
        FailureKind.GPU_MEMORY,
        r"OOM when allocating tensor with shape(?P<shape>\[[\d,]*\]).*GPU",
        "out of GPU memory: a tensor of shape {shape} did not fit",
        _SMALLER_BATCH,
    ),
    _rule(
        FailureKind.GPU_MEMORY,
        r"(?:CUDA|HIP) out of memory|(?:CUDA|HIP) error: out of memory|CUDA_ERROR_OUT_OF_MEMORY"
        r"|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|cupy\S*OutOfMemoryError",
        "CUDA out of memory",
        _SMALLER_BATCH,
    ),
    # Memory of the node.
    _rule(
        FailureKind.SHARED_MEMORY,
        r"insufficient shared memory \(shm\)|workers are out of shared memory"
        r"|unable to (?:open|mmap|resize) shared memory|No space left on device: '/dev/shm",
        "out of shared memory (/dev/shm): the workers of the data loader used it up",
        "use fewer workers, or give the container more with --shm-size",
    ),
    _rule(
        FailureKind.TIME_LIMIT,
        r"CANCELLED AT \S+ DUE TO TIME LIMIT",
        "the job's time limit was reached",
        _MORE_TIME,
    ),
    _rule(
        FailureKind.HOST_MEMORY,
        r"Unable to allocate (?P<more>[\d.]+ \w+) for an array",
        "out of memory: an array of {more} did not fit",
        _MORE_MEMORY,
    ),
    _rule(
        FailureKind.HOST_MEMORY,
        r"DataLoader worker \(pid\S* \d+\) is killed by signal: Killed",
        "out of memory, most probably: a worker of the data loader was killed",
        "use fewer workers, or ask for more with the user property memory_gb",
    ),
    _rule(
        FailureKind.HOST_MEMORY,
        r"[Dd]etected \d+ oom[-_]kill|oom-kill:|Exceeded (?:job|step) memory limit|task \d+: Out Of Memory"
        r"|^MemoryError\b|std::bad_alloc|\[Errno 12\]|Cannot allocate memory|java\.lang\.OutOfMemoryError"
        r"|DefaultCPUAllocator: (?:can't|not enough)",
        "out of memory",
        _MORE_MEMORY,
    ),
    # Disks.
    _rule(
        FailureKind.DISK_FULL,
        r"Disk quota exceeded(?:: '(?P<path>[^']+)')?",
        "disk quota exceeded[: {path}]",
        _FREE_SPACE,
    ),
    _rule(
        FailureKind.DISK_FULL,
        r"No space left on device(?:: '(?P<path>[^']+)')?",
        "no space left on the device[: {path}]",
        _FREE_SPACE,
    ),
    # What is not installed.
    _rule(
        FailureKind.MISSING_MODULE,
        r"(?:ModuleNotFoundError|ImportError): No module named '?(?P<name>[\w.]+)'?",
        "the Python module {name} is not installed",
        _ADD_PACKAGE,
    ),
    _rule(
        FailureKind.MISSING_MODULE,
        r"importlib\.metadata\.PackageNotFoundError: No package metadata was found for (?P<name>\S+)",
        "the Python package {name} is not installed",
        _ADD_PACKAGE,
    ),
    _rule(
        FailureKind.MISSING_LIBRARY,
        r"(?<![\w.+-])(?P<name>[\w.+-]+\.so[\w.]*): cannot open shared object file",
        "the library {name} is not on this node",
        RUN_IN_IMAGE,
    ),
    _rule(
        FailureKind.MISSING_LIBRARY,
        r"version `(?P<name>[\w.]+)' not found",
        "the node's system is too old for this program: it has no {name}",
        RUN_IN_IMAGE,
    ),
    # GPUs.
    _rule(
        FailureKind.NO_GPU,
        r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device is detected"
        r"|CUDA_ERROR_NO_DEVICE|no NVIDIA GPU detected",
        "the program wants a GPU and sees none",
        "ask for one with the user property num_gpus",
    ),
    _rule(
        FailureKind.NO_GPU,
        r"Torch not compiled with CUDA enabled",
        "the installed PyTorch is the one for CPUs",
        "name the CUDA build in the task's requirements (extra_index_url, or a version such as torch==2.5.1+cu124)",
    ),
    _rule(
        FailureKind.NO_GPU,
        r"no kernel image is available for execution on the device|CUDA driver version is insufficient"
        r"|driver on your system is too old|PTX was compiled with an unsupported toolchain",
        "the installed CUDA build does not fit this node's GPU or driver",
        "install a build for it, or ask for another GPU with the user property gpu_type",
    ),
    _rule(
        FailureKind.GPU_ERROR,
        r"device-side assert triggered",
        "a CUDA kernel met an assertion, often an index or a label that is out of range",
        "run it with CUDA_LAUNCH_BLOCKING=1, which names the line",
    ),
    _rule(
        FailureKind.GPU_ERROR,
        r"an illegal memory access was encountered|uncorrectable ECC error|CUDA error: unspecified launch failure",
        "a CUDA kernel failed, by an error in it or in the GPU",
        "run it with CUDA_LAUNCH_BLOCKING=1, which names the line; if it fails on this node only, tell the site",
    ),
    # The network.
    _rule(
        FailureKind.NETWORK,
        r"(?:Could not resolve host: |Failed to resolve ')(?P<host>[\w.-]+)",
        "this node cannot resolve the name {host}",
        _NODE_NETWORK,
    ),
    _rule(
        FailureKind.NETWORK,
        r"host='(?P<host>[\w.-]+)', port=\d+\): Max retries exceeded"
        r"|Cannot connect to host (?P<host_1>[\w.-]+)|Failed to connect to (?P<host_2>[\w.-]+) port",
        "this node has no connection to {host}",
        _NODE_NETWORK,
    ),
    _rule(
        FailureKind.NETWORK,
        r"Name or service not known|Temporary failure in name resolution|Network is unreachable|No route to host"
        r"|LocalEntryNotFoundError|couldn't connect to 'https?:|Failed to establish a new connection",
        "the network, or a host in it, cannot be reached from this node",
        _NODE_NETWORK,
    ),
    # Several processes.
    _rule(
        FailureKind.COLLECTIVE,
        r"Watchdog caught collective operation timeout: WorkNCCL\(.*?OpType=_?(?P<what>\w+).*?ran for (?P<ms>\d+) ",
        "NCCL time-out: {what} waited {seconds} s for another process",
        _OTHER_RANKS,
    ),
    _rule(
        FailureKind.COLLECTIVE,
        r"NCCL error in:? \S+, (?P<what>[^,(]+)|NCCL error: (?P<what_1>[^,(]+)",
        "NCCL error: {what}",
        f"{_OTHER_RANKS}; NCCL_DEBUG=INFO says more",
    ),
    _rule(
        FailureKind.COLLECTIVE,
        r"DistStoreError|DistNetworkError|Timed out after \d+ seconds waiting for clients|torch\.distributed\S*Timeout",
        "the processes of the program did not find each other in time",
        _OTHER_RANKS,
    ),
    # What its user typed.
    _rule(
        FailureKind.ARGUMENTS,
        r"^[\w./-]+(?: [\w-]+)*: error: (?P<what>(?:unrecognized arguments|the following arguments|argument |ambiguous "
        r"option|expected ).*)",
        "the script refused its arguments: {what}",
        "look at the task's section Args",
    ),
    _rule(
        FailureKind.MISSING_COMMAND,
        r"(?:^|: )(?P<name>[\w./+-]+): (?:command )?not found$",
        "the command {name} is not on this node",
        RUN_IN_IMAGE,
    ),
    _rule(
        FailureKind.MISSING_FILE,
        r"FileNotFoundError: (?:\[Errno 2\] No such file or directory: )?'?(?P<path>[^'\n]+)'?",
        "a file is not there: {path}",
        "give its full path, on a file system that compute nodes see",
    ),
    _rule(
        FailureKind.NO_PERMISSION,
        r"PermissionError: \[Errno 13\] Permission denied: '(?P<path>[^']+)'",
        "no permission for {path}",
        "look at the rights of this path, for the user that the job runs as",
    ),
)


def cause_by_table(lines: Sequence[str]) -> FailureCause | None:
    """The first row of the table that one of these lines matches, the last such line."""
    for rule in _TABLE:
        for line in reversed(lines):
            if match := rule.pattern.search(line):
                return FailureCause(rule.kind, _filled(rule.sentence, match.groupdict()), rule.advice)
    return None


def _filled(sentence: str, groups: Mapping[str, str | None]) -> str:
    """The sentence with the groups in it; a part in brackets only where its group was found."""
    # A pattern has a name once: alternatives are called name_1, name_2.
    values = {name.partition("_")[0]: quote(value) for name, value in groups.items() if value}
    if "ms" in values:
        values["seconds"] = str(round(int(values["ms"]) / 1000))
    optional = re.compile(r"\[([^\]]*\{(\w+)\}[^\]]*)\]")
    return optional.sub(lambda part: part[1] if part[2] in values else "", sentence).format_map(values)


def quote(text: str) -> str:
    """Printed text as part of a sentence: one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_QUOTE else f"{line[: _LONGEST_QUOTE - 1]}…"
