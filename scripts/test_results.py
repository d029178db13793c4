"""Results of a run of pytest: what each collected test came to, as a summary for a person and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SLOWEST = 10


@dataclass
class TestResult:
    """``outcome`` is passed, failed, skipped, or "not run"; ``reason`` of what failed or was skipped."""

    __test__ = False  # not a class of tests

    outcome: str = "not run"
    reason: str = ""
    seconds: float = 0
    """Of fixtures too."""
    folder: str = ""
    """The test's own temporary folder, if it has one."""


@dataclass
class Results:
    """Of one run."""

    tests: dict[str, TestResult] = field(default_factory=dict)
    """Node id → result, of every test that was collected and selected."""
    errors: dict[str, str] = field(default_factory=dict)
    """Files that could not be collected → why."""
    unused: set[str] = field(default_factory=set)
    """Required capabilities that no test needed."""
    exit_code: int = 0
    evidence: Path | None = None

    def named(self, outcome: str) -> dict[str, TestResult]:
        return {name: test for name, test in self.tests.items() if test.outcome == outcome}

    @property
    def failed(self) -> dict[str, TestResult]:
        return self.named("failed")

    @property
    def not_run(self) -> dict[str, TestResult]:
        return self.named("not run")


class Recorder:
    """A plugin of the process that sees all reports: the only one, or that which starts the workers of xdist."""

    def __init__(self, required: frozenset[str]) -> None:
        self.results = Results(unused=set(required))
        self._terminal: pytest.TerminalReporter | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._terminal = session.config.pluginmanager.get_plugin("terminalreporter")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._collected(ids)

    def _collected(self, names: list[str]) -> None:
        for name in names:
            self.results.tests.setdefault(name, TestResult())

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.results.errors[report.nodeid] = _last_line(report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.results.tests.setdefault(report.nodeid, TestResult())
        test.seconds += report.duration
        self.results.unused -= {name for name in self.results.unused if name.replace("-", "_") in report.keywords}
        if report.failed:
            test.outcome, test.reason = "failed", _last_line(report.longreprtext)
            test.folder = str(dict(report.user_properties).get("folder", ""))
            if self._terminal is not None:
                # At once: pytest prints what failed when all is over, which may be half an hour later.
                self._terminal.write(f"\nFAILED {report.nodeid}: {test.reason}\n")
        elif test.outcome == "failed":
            return
        elif report.skipped:
            test.outcome, test.reason = "skipped", _reason_of_skip(report)
        elif report.when == "call":
            test.outcome = "passed"


def _last_line(text: str) -> str:
    """pytest marks the lines of an error by E."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    return next((line[1:].strip() for line in lines if line.startswith("E ")), lines[-1].strip())[:200]


def _reason_of_skip(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return getattr(report, "wasxfail", "") or report.longreprtext


def summary(results: Results) -> Iterator[str]:
    """Lines for a person: the slowest, each skip's reason, what failed and where its evidence lies, the counts."""
    slowest = sorted(results.tests.items(), key=lambda item: -item[1].seconds)[:SLOWEST]
    yield ""
    yield "Slowest:"
    yield from (f"  {test.seconds:7.1f} s  {name}" for name, test in slowest)
    if skipped := results.named("skipped"):
        yield "Skipped:"
        yield from (f"  {name}: {test.reason}" for name, test in skipped.items())
    for name, reason in results.errors.items():
        yield f"NOT COLLECTED {name}: {reason}"
    for name in results.not_run:
        yield f"NOT RUN {name}"
    for name, test in results.failed.items():
        yield f"FAILED {name}: {test.reason}" + (f"\n  its folder: {test.folder}" if test.folder else "")
    for name in sorted(results.unused):
        yield f"NOT CHECKED {name} is required, but no test of this run needs it"
    if not results.tests:
        yield "NOT RUN: no test was found"
    if results.evidence:
        yield f"Evidence: the folders of all tests are kept in {results.evidence}"
    yield ", ".join(f"{count} {outcome}" for outcome, count in counts(results).items())


def counts(results: Results) -> dict[str, int]:
    """Passed, failed and skipped; not run and not collected where there are any."""
    found = {outcome: len(results.named(outcome)) for outcome in ("passed", "failed", "skipped", "not run")}
    found["not collected"] = len(results.errors)
    return {outcome: count for outcome, count in found.items() if count or outcome in ("passed", "failed", "skipped")}


def as_json(results: Results) -> str:
    return (
        json.dumps(
            {
                "exit code": results.exit_code,
                "counts": counts(results),
                "evidence": str(results.evidence) if results.evidence else None,
                "not collected": results.errors,
                "required and not needed": sorted(results.unused),
                "tests": {name: vars(test) for name, test in results.tests.items()},
            },
            indent=2,
        )
        + "\n"
    )
