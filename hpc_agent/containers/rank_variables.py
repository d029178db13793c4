"""Variables that differ between the ranks of a task on many nodes, and how each rank's container gets its own.

All ranks of a node run one command, which a node agent has prepared, and whose start script has the variables that all
have in common. Runtimes keep the node's variables out. So what a rank's launcher has set goes along as arguments of
the start script; none of it is secret.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpc_agent.containers.runtime_api import Argv

_NAMES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "NNODES"),
    *("MASTER_ADDR", "MASTER_PORT", "CLEARML_MULTI_NODE_SINGLE_TASK", "TORCHELASTIC_[A-Z_]*"),
    "[A-Z]*_SOCKET_IFNAME",
    # By which MPI libraries find each other.
    *("PMI_[A-Z_0-9]*", "PMIX_[A-Z_0-9]*", "OMPI_[A-Z_0-9]*"),
    # Of a step, where the start script has those of the node agent's.
    *("[A-Z]*_PROCID", "[A-Z]*_LOCALID", "[A-Z]*_NODEID", "[A-Z]*_NODENAME"),
    *("[A-Z]*_STEP_[A-Z_]*", "[A-Z]*_STEPID", "[A-Z]*_GTIDS"),
)

_PASS_ON = f"""\
while IFS= read -r pair; do
    [ -z "$pair" ] || set -- "$@" "$pair"
done <<END
$(env | grep -E '^({"|".join(_NAMES)})=')
END
exec "$@"
"""

EXPORT_ARGUMENTS = """\
for pair in "$@"; do
    # The site's network interface is for tasks that name none.
    case $pair in *_SOCKET_IFNAME=*) eval "[ -z \\"\\${${pair%%=*}:-}\\" ]" || continue ;; esac
    export "$pair"
done
shift $#"""
"""Lines of a start script that takes them."""


def passing_on(argv: Sequence[str]) -> Argv:
    """``argv``, which ends in a start script, with the rank's variables of the environment it is run in."""
    # Not sh: where that is dash, it takes functions out of the environment that the job's script has exported.
    return ["bash", "-c", _PASS_ON, "bash", *argv]
