"""The few lines of bash that a job's bash reads before the script's first line, because BASH_ENV names them. Pure.

Other shells read them too, such as a site's own sbatch written for bash; only in the shell of the batch script they do
anything. They leave that shell as it was: no variable, function, option, trap or job of theirs stays, and what they
start is not a child of it. If anything in them fails the script runs anyway, also under ``bash -eux``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc_agent.tracking.tracked_records import TrackedDirectory

LEAST_MEMORY_MB = 512
"""A job with less is left to itself: what watches from inside takes 40 MB of it."""
_ELEMENT_TIMEOUT_S = 30

_TEXT = """\
# Written by hpc-agent sbatch: bash reads this before the first line of the script, which itself is untouched.
{{
case $0 in
*/slurm_script)
{restore}
{start}
;;
esac
}} 8>&1 9>&2 2>/dev/null
{instead}
"""
# Substitutions, because even a command that has ended leaves a trace in a shell: bash remembers its process id.
_ONE = """\
: "$(
{once}
    then {sidecar}
    fi
)\""""
_ARRAY = """\
CLEARML_TASK_ID=$(
{once}
    then cd {folder} && CLEARML_CONFIG_FILE={config} \\
timeout {timeout} {agent} follow --element {folder} 2>>{log} </dev/null
    fi
)
case $CLEARML_TASK_ID in
    "" | *[!0-9A-Za-z-]*)
        unset CLEARML_TASK_ID
        ;;
    *)
        export CLEARML_TASK_ID CLEARML_LOG_TASK_TO_BACKEND=0
        : "$( {sidecar} )"
        ;;
esac"""
_ONCE = """\
    if [ -s /dev/fd/8 ] || [ -s /dev/fd/9 ]
    then stat -L -c %s /dev/fd/8 /dev/fd/9 >{sizes}
    fi
    if {enough} && mkdir {folder}/"ran-${{SLURM_JOB_ID-}}-${{SLURM_RESTART_COUNT:-0}}\""""
_SIDECAR = """\
( cd {folder} && CLEARML_CONFIG_FILE={config} exec {agent} follow --inside {of} --pid $$ \
3>&8 4>&9 8>&- 9>&- >>{log} 2>&1 </dev/null & )"""
_ENOUGH = """\
[ "${{SLURM_MEM_PER_NODE:-{least}}}" -ge {least} ] && \
[ "$((${{SLURM_MEM_PER_CPU:-{least}}} * ${{SLURM_CPUS_ON_NODE:-1}}))" -ge {least} ]"""


def text(
    folder: TrackedDirectory, config: Path, agent: Sequence[str], restore: Mapping[str, str], *, array: bool
) -> str:
    """``restore``: variables to set back to what the job would have without us; empty: unset."""
    names = {
        "folder": _quoted(folder.path),
        "config": _quoted(config),
        "agent": shlex.join(agent),
        "log": _quoted(folder.log),
    }
    of = f'{_quoted(folder.path.parent)}/"$CLEARML_TASK_ID"' if array else names["folder"]
    enough = _ENOUGH.format(least=LEAST_MEMORY_MB)
    start = (_ARRAY if array else _ONE).format(
        once=_ONCE.format(sizes=_quoted(folder.sizes), enough=enough, **names),
        sidecar=_SIDECAR.format(of=of, **names),
        timeout=_ELEMENT_TIMEOUT_S,
        **names,
    )
    # What bash would have read in our place.
    own = shlex.quote(restore.get("BASH_ENV", ""))
    instead = f"[ ! -r {own} ] || . {own} || :" if restore.get("BASH_ENV") else ""
    return _TEXT.format(
        restore="\n".join(_set_back(name, value) for name, value in restore.items()), start=start, instead=instead
    )


def _set_back(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}" if value else f"unset {name}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
