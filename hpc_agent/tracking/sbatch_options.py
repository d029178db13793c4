"""Options of a submission (command line, environment, #SBATCH lines) and what they mean for its task. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hpc_agent.domain.resources import parse_time_limit
from hpc_agent.errors import ResourceError
from hpc_agent.tracking.command_line import parse

_VERBATIM = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "reservation": "reservation",
}
_MB = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024}
_NUMBER = re.compile(r"[0-9]{1,9}")
_MEMORY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([KMGT]?)B?")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?")
_MOST_ELEMENTS = 4_000_001
"""The largest MaxArraySize that Slurm takes."""


def resources_from_options(options: Mapping[str, str]) -> dict[str, str]:
    """The user properties with which a daemon asks for the same; only what was asked for, and can be understood."""
    nodes = _count(options.get("nodes", "").partition("-")[0])
    tasks = _tasks_per_node(options, nodes or 1)
    gpus, gpu_type = _gpus(options, nodes or 1, tasks or 1)
    cpus = _cpus(options, tasks, gpus or 0)
    memory = _memory_mb(options, cpus or 1, gpus or 0)
    found = {
        "num_nodes": nodes,
        "num_gpus": gpus,
        "gpu_type": gpu_type,
        "num_cpus": cpus,
        "memory_gb": f"{memory / 1024:g}" if memory else None,
        "time_limit": _time_limit(options.get("time", "")),
        **{name: options.get(option) for name, option in _VERBATIM.items()},
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def outputs(options: Mapping[str, str], started_in: Path, *, is_array: bool) -> tuple[str, ...]:
    """The names of the job's output files, absolute, with Slurm's patterns in them; standard output first."""
    standard = options.get("output") or ("slurm-%A_%a.out" if is_array else "slurm-%j.out")
    names = dict.fromkeys(name for name in (standard, options.get("error")) if name)
    return tuple(str(started_in / name) for name in names)


def _count(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _tasks_per_node(options: Mapping[str, str], nodes: int) -> int | None:
    per_node = _count(options.get("ntasks-per-node", ""))
    total = _count(options.get("ntasks", ""))
    return per_node if per_node or not total else -(-total // nodes)


def _gpus(options: Mapping[str, str], nodes: int, tasks: int) -> tuple[int | None, str]:
    """GPUs for each node, and their type if one is named."""
    if "gpus-per-node" in options:
        return _gpu_counts(options["gpus-per-node"].split(","))
    if "gpus" in options:
        total, kind = _gpu_counts(options["gpus"].split(","))
        return (None if total is None else -(-total // nodes)), kind
    if "gpus-per-task" in options:
        each, kind = _gpu_counts(options["gpus-per-task"].split(","))
        return (None if each is None else each * tasks), kind
    return _gpu_counts(_gpus_of_gres(options.get("gres", "")))


def _gpus_of_gres(text: str) -> list[str]:
    """``gpu:a100:2,lscratch:10`` → ``a100:2``; ``gpu`` alone is one."""
    parts = [part.removeprefix("gres:").removeprefix("gres/").split(":") for part in text.split(",")]
    return [":".join(words[1:]) or "1" for words in parts if words[0] == "gpu"]


def _gpu_counts(parts: Sequence[str]) -> tuple[int | None, str]:
    """``["a100:2", "1"]`` → 3, ``a100``; a type alone is one GPU of it."""
    total: int | None = None
    kind = ""
    for part in parts:
        name, colon, number = part.partition("(")[0].rpartition(":")
        count = _count(number)
        if count is None:
            name, count = (f"{name}{colon}{number}", 1) if number else ("", None)
        if count is None:
            continue
        total = (total or 0) + count
        kind = kind or name
    return total, kind


def _cpus(options: Mapping[str, str], tasks: int | None, gpus: int) -> int | None:
    """CPUs on each node, as one task of a daemon's job has them all."""
    each = _count(options.get("cpus-per-task", ""))
    if each or tasks:
        return (each or 1) * (tasks or 1)
    per_gpu = _count(options.get("cpus-per-gpu", ""))
    return per_gpu * gpus if per_gpu and gpus else None


def _memory_mb(options: Mapping[str, str], cpus: int, gpus: int) -> float | None:
    for name, times in (("mem", 1), ("mem-per-cpu", cpus), ("mem-per-gpu", gpus)):
        match = _MEMORY.fullmatch(options.get(name, "").upper())
        if match:
            # 0 is all that the node has.
            return float(match[1]) * _MB[match[2] or "M"] * times or None
    return None


def _time_limit(text: str) -> str | None:
    try:
        return text if text and parse_time_limit(text) else None
    except ResourceError:
        return None  # UNLIMITED


class ArrayElements(msgspec.Struct, frozen=True):
    """The indices of an array: ``spec`` without its throttle, and one by one."""

    spec: str = ""
    indices: tuple[int, ...] = ()


def elements(options: Mapping[str, str]) -> ArrayElements:
    """``--array=1-5:2%3,9`` → 1, 3, 5, 9; none for a job that is not an array, or whose indices cannot be read."""
    spec = options.get("array", "").partition("%")[0]
    found: list[int] = []
    for part in spec.split(",") if spec else []:
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            return ArrayElements()
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        indices = range(first, last + 1, step or 1)
        if len(found) + len(indices) > _MOST_ELEMENTS:
            return ArrayElements()
        found += indices
    return ArrayElements(spec if found else "", tuple(dict.fromkeys(found)))


class Export(msgspec.Struct, frozen=True):
    """Export of our variables to the job. ``value`` is what SLURM_EXPORT_ENV has in the job without us."""

    reaches: bool = True
    option: str = ""
    value: str = ""


def export(options: Mapping[str, str], names: Sequence[str], *, heterogeneous: bool) -> Export:
    """The ``--export`` that adds variables ``names`` of sbatch's environment to the job's.

    All of the environment travels by default. NONE and a list start from the user's login environment on the node, so
    that NONE is a list without names; NIL and a file do not, and are left alone.
    """
    value = options.get("export", "")
    first = value.partition(",")[0].upper()
    if "export-file" in options or first == "NIL":
        return Export(reaches=False)
    if first in ("", "ALL"):
        return Export(value=value)
    if heterogeneous or any(re.search(rf"(^|,){name}(=|,|$)", value) for name in names):
        return Export(reaches=False)
    listed = ",".join([*([] if first == "NONE" else [value]), *names])
    return Export(option=f"--export={listed}", value=value)


_VARIABLES = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_ARRAY_INX": "array",
    "SBATCH_CLUSTERS": "clusters",
    "SLURM_CLUSTERS": "clusters",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_CPUS_PER_GPU": "cpus-per-gpu",
    "SBATCH_ERROR": "error",
    "SBATCH_EXPORT": "export",
    "SBATCH_GPUS": "gpus",
    "SBATCH_GPUS_PER_NODE": "gpus-per-node",
    "SBATCH_GPUS_PER_TASK": "gpus-per-task",
    "SBATCH_GRES": "gres",
    "SBATCH_JOB_NAME": "job-name",
    "SBATCH_MEM_PER_CPU": "mem-per-cpu",
    "SBATCH_MEM_PER_GPU": "mem-per-gpu",
    "SBATCH_MEM_PER_NODE": "mem",
    "SBATCH_OUTPUT": "output",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_TIMELIMIT": "time",
}
_ONE_OF = ({"mem", "mem-per-cpu", "mem-per-gpu"},)
"""Of these the one given last in the strongest place holds."""


def directives(text: str) -> dict[str, str]:
    """The options on ``#SBATCH`` lines, which come before the first command; of a heterogeneous job's first part."""
    words: list[str] = []
    for line in text.splitlines():
        if line.startswith("#SBATCH"):
            found = _words(line[len("#SBATCH") :])
            if found[:1] in (["hetjob"], ["packjob"]):
                break
            words += found
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return dict(parse(words).options)


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        return list(lexer)
    except ValueError:
        return []  # an open quote: sbatch refuses the script


def effective(given: Mapping[str, str], environ: Mapping[str, str], text: str) -> dict[str, str]:
    """The options that hold: the script's lines, over them the environment, over them the command line."""
    variables = {name: environ[variable] for variable, name in _VARIABLES.items() if environ.get(variable)}
    options: dict[str, str] = {}
    for layer in (directives(text), variables, given):
        for group in _ONE_OF:
            if group & layer.keys():
                options = {name: value for name, value in options.items() if name not in group}
        options.update(layer)
    return options
