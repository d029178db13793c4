"""A check of the site, and the runner of many: side by side, each with a time limit, so that none can spoil another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from hpc_agent.cancellation import Cancelled, cancelled_when
from hpc_agent.clock import Clock
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import EventLog
from hpc_agent.redact import without_credentials

log = EventLog("doctor")

T = TypeVar("T")

TIMEOUT_S = 30.0
_TURN_S = 0.2
_TIDY_UP_S = 5.0
"""How long checks that ran out of time are given to end their programs and jobs, all of them together."""


class CheckStatus(Enum):
    """``WARNING``: works, but will give trouble. ``SKIPPED``: not looked at, and the message says why."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CheckResult:
    """What a check found out, in a sentence; ``remedy``: the command that fixes it, or what to do."""

    status: CheckStatus
    message: str
    remedy: str = ""
    name: str = ""
    """Of its line; that of its check when empty."""


def ok(message: str, *, name: str = "") -> CheckResult:
    return CheckResult(CheckStatus.OK, message, name=name)


def warning(message: str, remedy: str, *, name: str = "") -> CheckResult:
    return CheckResult(CheckStatus.WARNING, message, remedy, name)


def failed(message: str, remedy: str, *, name: str = "") -> CheckResult:
    return CheckResult(CheckStatus.FAILED, message, remedy, name)


def skipped(message: str, remedy: str = "", *, name: str = "") -> CheckResult:
    return CheckResult(CheckStatus.SKIPPED, message, remedy, name)


class SkippedError(HpcAgentError):
    """What this check needs is missing, which another check reports."""


@dataclass(frozen=True)
class Check:
    """``run`` yields one finding or several; an error that it raises is one more. It may hang: see ``run_checks``."""

    subject: str
    """Heading under which its lines are shown."""
    name: str
    run: Callable[[], Iterable[CheckResult]]
    remedy: str = ""
    """For an error that it raises, and for a check that runs out of time."""
    timeout: float = TIMEOUT_S
    """Seconds."""


@dataclass(frozen=True)
class CheckLine:
    """One line of the report."""

    subject: str
    name: str
    finding: CheckResult


class Once(Generic[T]):
    """A value that several checks need, made by the first one that asks; its error is the same for all."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: Future[T] = Future()

    def get(self) -> T:
        with self._lock:
            if not self._made.done():
                try:
                    self._made.set_result(self._make())
                except Exception as error:  # noqa: BLE001 - raised to each that asks
                    self._made.set_exception(error)
        return self._made.result()


@dataclass
class _Running:
    check: Check
    deadline: float
    late: threading.Event = field(default_factory=threading.Event)
    findings: list[CheckResult] = field(default_factory=list)
    thread: threading.Thread = field(init=False)

    def start(self) -> None:
        # A daemon thread: one that hangs in a dead file system must not keep the program from ending.
        self.thread = threading.Thread(target=self._run, name=self.check.name, daemon=True)
        try:
            self.thread.start()
        except RuntimeError as error:
            self.deadline = 0.0
            self.findings.append(failed(f"could not be run: {error}", "ulimit -u"))

    def _run(self) -> None:
        try:
            with cancelled_when(self.late.is_set):
                for finding in self.check.run():
                    self.findings.append(finding)
        except Cancelled:
            return
        except SkippedError as error:
            self.findings.append(skipped(str(error)))
        except HpcAgentError as error:
            self.findings.append(failed(without_credentials(str(error)), self.check.remedy))
        except Exception as error:  # noqa: BLE001 - costs the line of this check only
            log.debug("check.failed", check=self.check.name, error=error)
            self.findings.append(
                failed(f"{type(error).__name__}: {error}", self.check.remedy or "hpc-agent --debug doctor")
            )

    def is_over(self, now: float) -> bool:
        return not self.thread.is_alive() or now >= self.deadline

    def lines(self) -> list[CheckLine]:
        """What it found until now; one more line if it is not done."""
        found = list(self.findings)
        if self.thread.is_alive():
            self.late.set()
            found.append(failed(f"no answer within {self.check.timeout:g} s", self.check.remedy))
        return [CheckLine(self.check.subject, finding.name or self.check.name, finding) for finding in found]


def run_checks(
    checks: Sequence[Check], clock: Clock, progress: Callable[[Sequence[str]], None] = lambda _: None
) -> Generator[list[CheckLine], None, None]:
    """Run all checks at once; yields the lines of each in the order of ``checks``, as soon as it is its turn.

    ``progress`` gets the names of the unfinished checks a few times a second.
    """
    running = [_Running(check, clock.monotonic() + check.timeout) for check in checks]
    for each in running:
        each.start()
    try:
        for each in running:
            while not each.is_over(clock.monotonic()):
                progress([other.check.name for other in running if not other.is_over(clock.monotonic())])
                each.thread.join(_TURN_S)
            yield each.lines()
    finally:
        # What is not over has run out of time, or the user pressed Ctrl-C: jobs that were submitted are cancelled.
        for each in running:
            each.late.set()
        end = clock.monotonic() + _TIDY_UP_S
        for each in running:
            each.thread.join(max(end - clock.monotonic(), 0.0))
