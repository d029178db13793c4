"""What a job of ``hpc-agent doctor --jobs`` finds out about its node, and the files by which it tells so."""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from hpc_agent import __version__
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.doctor import folder_checks, machine_checks
from hpc_agent.doctor.check import Check, CheckResult, CheckStatus, failed, ok, run_checks
from hpc_agent.doctor.server_checks import ServerChecks
from hpc_agent.file_records import exists_uncached, read_record, write_record

SUBJECT = "node"
STARTED, READY, PING, PONG, REPORT = "started", "ready", "ping", "pong", "report.json"
"""In this order: by the job's shell, by the agent in it, by the login node, by the agent again. The first holds the
node's name."""
REPOSITORIES = "repositories.json"
"""Addresses to try git with, by the login node; there from the beginning."""
_PING_S = 90.0
_POLL_S = 0.05


class NodeReportLine(msgspec.Struct, frozen=True):
    """As ``check.CheckLine``, on disk."""

    name: str
    status: CheckStatus
    message: str
    remedy: str = ""

    def finding(self) -> CheckResult:
        return CheckResult(self.status, self.message, self.remedy, self.name)


class NodeReport(msgspec.Struct, frozen=True):
    """Everything that was found out on a node."""

    node: str
    lines: list[NodeReportLine]


def report(settings: AllSettings, folder: Path, clock: Clock) -> None:
    """Check this node, and write the report into ``folder``."""
    repositories = read_record(folder / REPOSITORIES, tuple[str, ...]) or ()
    found = [
        NodeReportLine(line.name, line.finding.status, line.finding.message, line.finding.remedy)
        for lines in run_checks(_checks(settings, folder, repositories, clock), clock)
        for line in lines
        # Set by the login node, which sees how late it comes.
        if line.finding.message
    ]
    write_record(folder / REPORT, NodeReport(socket.gethostname(), found), mode=0o600)


def _checks(settings: AllSettings, folder: Path, repositories: Sequence[str], clock: Clock) -> list[Check]:
    checks = [
        Check(SUBJECT, "files", partial(_answer_ping, folder, clock), timeout=_PING_S + 10),
        Check(SUBJECT, "python", _python),
        *ServerChecks(settings.api, (), clock).all(SUBJECT, queues=False),
        Check(SUBJECT, "scratch", partial(folder_checks.scratch, settings.hpc)),
    ]
    build_on = settings.hpc.envs.build_on
    if build_on != "login":
        checks += [
            machine_checks.package_index(SUBJECT, settings),
            *machine_checks.git_access(SUBJECT, settings, repositories),
        ]
    return checks


def _python() -> Iterator[CheckResult]:
    yield ok(f"Python {platform.python_version()} at {sys.executable}, hpc-agent {__version__}")


def _answer_ping(folder: Path, clock: Clock) -> Iterator[CheckResult]:
    (folder / READY).touch()
    deadline = clock.monotonic() + _PING_S
    while not exists_uncached(folder / PING):
        if clock.monotonic() > deadline:
            yield failed(
                f"a file that was written elsewhere was not seen here within {_PING_S:.0f} s",
                "ask the administrators how this folder is mounted on the node",
            )
            return
        clock.sleep(_POLL_S)
    (folder / PONG).touch()
    yield ok("")
