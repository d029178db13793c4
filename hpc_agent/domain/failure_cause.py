"""Known causes of a program's death: the last lines of its console and its exit code → one sentence and a next step.

An error that was printed and survived must not be taken for the cause, so a pattern counts only where the program
ended: in its last traceback or, where there is none, in its last lines. In programs of several processes one dies first
and the others of its absence: those are read last.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping

from hpc_agent.domain.failure_table import RUN_IN_IMAGE, FailureCause, FailureKind, cause_by_table, quote
from hpc_agent.domain.printed_errors import PrintedError, printed_errors


def failure_cause(console: str, exit_code: int) -> FailureCause | None:
    """The cause that ``console``, the end of what a program printed, and its exit code show; None if they show none.

    ``exit_code`` is negative for a signal, or 128 + n as shells count it.
    """
    if exit_code == 0:
        return None
    lines = _plain_lines(console)
    number = _signal_number(exit_code)
    if number in _UNANNOUNCED:
        # It printed nothing about its end: a traceback that is there was survived.
        return cause_by_table(lines[-_LAST_LINES:]) or _by_signal(number)
    errors = list(printed_errors(lines[-_TRACEBACK_LINES:]))
    for error in reversed(errors):
        if not error.is_aftermath:
            return cause_by_table(error.lines) or _by_exception(error)
    # A report of other processes' deaths is long, and what they died of comes before it.
    found = cause_by_table(lines[-_TRACEBACK_LINES if errors else -_LAST_LINES :])
    return found or (_by_exception(errors[-1]) if errors else None) or _by_exit_code(exit_code) or _by_signal(number)


_LAST_LINES = 60
"""Where a cause is looked for without a traceback; NCCL's abort alone is some 40 lines."""
_TRACEBACK_LINES = 400
"""Where the last traceback is looked for: eight processes may abort after it."""

# ---------------------------------------------------------------- lines

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")
_WHO = re.compile(
    r"^(?:\[rank\d+\]:? ?|\[\d+,\d+\]<std\w+>: ?|\(\S+ (?:pid|rank)=\d+[^)]*\) ?"
    r"|(?:\d{1,4}): (?=\s|Traceback|\w+(?:\.\w+)*(?:Error|Exception)\b))"
)
"""Whose line it is: torchrun's ``[rank0]:``, mpirun's ``[1,0]<stderr>:``, Ray's ``(f pid=12)``, srun's ``0:``."""
_GROUP = re.compile(r"^\s*(?:\| |\+(?=[ -]))")
"""The margin of an exception group."""


_LINE_LENGTH = 2000
"""What programs say of their end is at the beginning of a line."""


def _plain_lines(console: str) -> list[str]:
    """The lines that are not empty, without colours and without whose line it is."""
    lines = (_ESCAPES.sub("", line[:_LINE_LENGTH]).rstrip() for line in console.splitlines())
    return [plain for line in lines if (plain := _WHO.sub("", _GROUP.sub("", line), count=1))]


# ---------------------------------------------------------------- exceptions, exit codes, signals


def _by_exception(error: PrintedError) -> FailureCause:
    said = f"{error.name}: {error.message}" if error.message else error.name
    place = f" ({error.place})" if error.place else ""
    return FailureCause(FailureKind.EXCEPTION, f"{quote(said)}{place}")


def _by_exit_code(code: int) -> FailureCause | None:
    if code == 127:
        sentence = "a command was not found on this node (exit code 127)"
        return FailureCause(FailureKind.MISSING_COMMAND, sentence, RUN_IN_IMAGE)
    if code == 126:
        sentence = "a command could not be executed (exit code 126)"
        advice = "look at its rights, and whether it was built for this kind of node"
        return FailureCause(FailureKind.MISSING_COMMAND, sentence, advice)
    return None


def _signal_number(exit_code: int) -> int:
    """0 for none."""
    number = -exit_code if exit_code < 0 else exit_code - 128
    return number if 0 < number <= 64 else 0


_UNANNOUNCED = frozenset({signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})

_SIGNALS: Mapping[int, tuple[str, str]] = {
    signal.SIGKILL: (
        "killed by SIGKILL",
        "most often memory ran out: ask for more with the user property memory_gb; else another user killed it",
    ),
    signal.SIGSEGV: (
        "crashed with a segmentation fault (SIGSEGV), in compiled code",
        "run it with PYTHONFAULTHANDLER=1 to see where; packages that do not fit together are the usual cause",
    ),
    signal.SIGBUS: (
        "crashed with a bus error (SIGBUS)",
        "shared memory (/dev/shm) or a disk with memory-mapped files was full: use fewer data loader workers",
    ),
    signal.SIGILL: (
        "crashed on an illegal instruction (SIGILL)",
        "a package was built for a newer processor than this node's: choose nodes with the user property constraint",
    ),
    signal.SIGFPE: ("crashed with an arithmetic error (SIGFPE), in compiled code", "PYTHONFAULTHANDLER=1 shows where"),
    signal.SIGABRT: ("aborted itself (SIGABRT)", "its last lines say why"),
}


def _by_signal(number: int) -> FailureCause | None:
    if number not in _SIGNALS:
        return None
    return FailureCause(FailureKind.SIGNAL, *_SIGNALS[number])
