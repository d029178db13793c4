"""The environment that scheduler commands, and through sbatch the jobs, are started with."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpc_agent.config.names import is_setting
from hpc_agent.redact import is_secret
from hpc_agent.secret_values import holds_credential

_SITE = re.compile(
    # They change what Slurm's commands do or print, or belong to the job or session that we run in
    # (docs/internals/slurm.md#command-environment).
    r"^(SLURM_(?!CONF$)|SBATCH_|SALLOC_|SRUN_|SQUEUE_|SACCT_|SCANCEL_|SINFO_|SCONTROL_|PMIX?_|XDG_|DBUS_)"
)


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without another job's or session's variables, without secrets and without settings.

    sbatch copies its environment into the job, where other programs, ``scontrol`` and core files can show it; what a
    job must know it reads from a file of mode 0600: proxies and package indexes with a password too
    (``hpc.job_environment``). That file has our settings as well, flags included, which variables would beat there.
    """
    return {name: value for name, value in environ.items() if not _left_out(name, value)}


def _left_out(name: str, value: str) -> bool:
    if _SITE.match(name) or is_secret(name) or is_setting(name):
        return True
    # A shell function (Lmod's ``module``) is code, in which anything may look like a secret.
    return not name.startswith("BASH_FUNC_") and holds_credential(value)


def for_queries(environ: Mapping[str, str]) -> dict[str, str]:
    """``scrubbed``, and times come out as seconds since 1970; not for sbatch, whose jobs would inherit that."""
    return {**scrubbed(environ), "SLURM_TIME_FORMAT": "%s", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
