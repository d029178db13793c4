"""The environment that the commands of schedulers, and through them the jobs, are started with."""

from __future__ import annotations

from collections.abc import Mapping

from hpc_agent.config.names import is_setting
from hpc_agent.redact import is_secret
from hpc_agent.schedulers.backends import every
from hpc_agent.secret_values import holds_credential

_SESSION = ("XDG_", "DBUS_")
"""Beginnings of the variables of a login session, which ends before its jobs do."""


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without another job's or session's variables, without secrets and without settings.

    A scheduler copies the environment of the submission into the job, where its own commands, other programs and core
    files can show it; what a job must know it reads from a file of mode 0600: proxies and package indexes with a
    password too (``hpc.job_environment``). That file has our settings as well, flags included, which variables would
    override there.
    """
    foreign = {name for backend in every() for name in backend.foreign(environ)}
    return {name: value for name, value in environ.items() if name not in foreign and not _left_out(name, value)}


def _left_out(name: str, value: str) -> bool:
    if name.startswith(_SESSION) or is_secret(name) or is_setting(name):
        return True
    # A shell function (Lmod's ``module``) is code, in which anything may look like a secret.
    return not name.startswith("BASH_FUNC_") and holds_credential(value)
