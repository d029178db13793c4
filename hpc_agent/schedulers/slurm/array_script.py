"""Script of a job array whose elements are jobs of their own: each runs its own script, in its own folder. Pure."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec

OWN_JOB_ID = "HPC_AGENT_SLURM_JOB_ID"
"""Set in an element, in place of Slurm's variables of arrays: a task does not know that it travels in one."""
_DIRECTIVE = re.compile(r"#(?:SBATCH|PBS|BSUB)\b")
_OWN_DIRECTIVE = re.compile(r"#SBATCH\s+(?:--(?:job-name|output)=\S+|-[Jo]\s*\S+)\s*")
"""What each job has for itself; given to sbatch as arguments, which come first."""
_NOT_TOGETHER = re.compile(r"#SBATCH\s+(?:.*\s)?(?:--array\b|-a\b|hetjob|packjob)|#(?:BB|DW)\b")
"""Scripts of arrays, of several jobs, and with directives that Slurm reads anywhere in them."""

_WAITING = re.compile(
    r"(?P<array>[0-9]{1,10})_\[(?P<indexes>[0-9]{1,7}(?:-[0-9]{1,7})?(?:,[0-9]{1,7}(?:-[0-9]{1,7})?)*)(?:%[0-9]+)?\]"
)


class ArrayKey(msgspec.Struct, frozen=True):
    """What the scripts of jobs must have in common to travel as one array."""

    interpreter: str
    directives: tuple[str, ...]


def array_key(script: str) -> ArrayKey | None:
    """The key of a script's text; None: its job cannot be an element."""
    first, *lines = script.splitlines()
    if not first.startswith("#!") or any(_NOT_TOGETHER.match(line) for line in lines):
        return None
    directives = []
    for line in lines:
        if _DIRECTIVE.match(line):
            if not _OWN_DIRECTIVE.fullmatch(line):
                directives.append(line.rstrip())
        elif line.strip() and not line.startswith("#"):
            break  # here sbatch stops to read them
    return ArrayKey(first[2:].strip(), tuple(directives))


def array_script(key: ArrayKey, folder: Path, script_name: str) -> str:
    """``folder`` has, for each index, a link to the folder of that element, in which its script is."""
    interpreter = " ".join(shlex.quote(word) for word in key.interpreter.split())
    # As in the scripts themselves: the warning may come before the agent can take it.
    ignored = ["trap '' USR1"] if any("--signal" in line for line in key.directives) else []
    lines = [
        "#!/bin/sh",
        *key.directives,
        *ignored,
        "# An element whose folder is gone is not meant any more.",
        f'cd -P {shlex.quote(str(folder))}/"$SLURM_ARRAY_TASK_ID" || exit 0',
        f'export {OWN_JOB_ID}="${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"',
        "unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_COUNT",
        "unset SLURM_ARRAY_TASK_MIN SLURM_ARRAY_TASK_MAX SLURM_ARRAY_TASK_STEP",
        f'exec {interpreter} "$PWD"/{shlex.quote(script_name)}',
    ]
    return "\n".join(lines) + "\n"


def waiting_elements(row: str) -> list[str]:
    """The ids in sacct's one row for elements that never started: ``7_[2-4,6%1]``. Empty for any other row, and for one
    that is too long for sacct to name all (``7_[1,3,5,...]``)."""
    match = _WAITING.fullmatch(row)
    if match is None:
        return []
    found: list[str] = []
    for part in match["indexes"].split(","):
        first, _, last = part.partition("-")
        found += (f"{match['array']}_{index}" for index in range(int(first), int(last or first) + 1))
    return found
