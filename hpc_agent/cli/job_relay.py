"""The relay of ``hpc.relay`` for commands: the node's end inside a job, the other end with what submits jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_agent.config.settings import AllSettings


def job_relay(settings: AllSettings) -> AbstractContextManager[None]:
    """Inside, this process and all it starts reach the ClearML server through the relay. Does nothing outside of jobs,
    and where ``hpc.relay`` is off.

    Raises:
        OSError: the relay's folder cannot be made.
    """
    if settings.hpc.relay.through == "none":
        return nullcontext()
    from hpc_agent.executor.agent_identity import identify

    identity = identify(settings)
    if identity.job is None:
        return nullcontext()
    # 50 ms, only where it is used.
    from hpc_agent.relay.node_proxy import node_proxy

    return node_proxy(settings, identity.cluster, os.environ)


def login_relay(settings: AllSettings, command: str, cluster: Callable[[], str]) -> AbstractContextManager[None]:
    """Inside, this process relays for its jobs, as a daemon does; a daemon that has the configured port goes on.

    Nothing is relayed where the scheduler does not answer: what the command does itself must not end with that.
    ``command``: tells several processes of this machine apart; ``cluster``: asked only where ``hpc.relay`` is on.
    """
    if settings.hpc.relay.through == "none":
        return nullcontext()
    import socket

    from hpc_agent.clock import SYSTEM
    from hpc_agent.errors import SchedulerUnavailableError
    from hpc_agent.logs import EventLog
    from hpc_agent.relay.connector import relay

    try:
        name = cluster()
    except SchedulerUnavailableError as error:
        EventLog("relay").warning("relay.not_started", error=error)
        return nullcontext()
    return relay(settings, name, f"{socket.gethostname()}:{command}:{os.getpid()}", SYSTEM, required=False)
