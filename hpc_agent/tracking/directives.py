"""What a script's ``#SBATCH`` lines and the environment ask of sbatch beside its command line. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from hpc_agent.tracking.command_line import parse

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
    """The options on ``#SBATCH`` lines, which stand before the first command; of a heterogeneous job's first part."""
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
