"""Runs tests once for each version of Slurm, or of Python, and reports version × test file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from pythons import PYTHONS, NoPythonError, python_environment
from slurm_cluster.errors import ClusterError
from slurm_cluster.releases import SUITES, VERSION_VARIABLE, slurm_release

ROOT = Path(__file__).parent.parent
CORE = (
    # Its first test waits for a time limit of two minutes: begun last, it would be waited for alone.
    "tests/e2e/test_job_endings.py",
    "tests/contract/test_scheduler_contract.py",
    "tests/e2e/test_slurm_path.py",
    "tests/e2e/test_job_arrays.py",
    "tests/e2e/test_pilots.py::test_many_short_tasks_run_in_one_job",
)
WORKERS = 4
"""Most of these tests wait most of the time."""
BY_FILE = ("--dist", "loadfile", "--no-loadscope-reorder")


@dataclass
class FileResult:
    """One test file on one version."""

    counts: Counter[str] = field(default_factory=Counter)
    """passed, failed, skipped."""
    details: list[str] = field(default_factory=list)
    """What failed, and the reason of what was skipped."""


@dataclass
class VersionResult:
    """All test files on one version."""

    version: str
    """As asked for (``24.11``)."""
    name: str = ""
    """The full version (``24.11.5``)."""
    files: dict[str, FileResult] = field(default_factory=dict)
    missing: str = ""
    """Why it could not be had."""
    seconds: float = 0
    exit_code: int = 0
    output: str = ""
    """What pytest printed."""

    @property
    def total(self) -> Counter[str]:
        return sum((result.counts for result in self.files.values()), Counter[str]())

    @property
    def is_ok(self) -> bool:
        """Tests that were all skipped say nothing of a version."""
        return self.exit_code == 0 and bool(self.missing or self.total["passed"])


def main() -> int:
    options = _arguments()
    versions = options.versions or (PYTHONS if options.python else tuple(SUITES))
    results = list(_all_results(versions, options))
    print()
    print("\n".join(_table(results)))
    if options.json:
        options.json.write_text(json.dumps([_as_json(result) for result in results], indent=2) + "\n", encoding="utf-8")
    return 0 if all(result.is_ok for result in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="test-matrix", description=__doc__)
    parser.add_argument("versions", nargs="*", help=f"of Slurm ({', '.join(SUITES)}), or with --python of Python")
    parser.add_argument("--python", action="store_true", help=f"on other Pythons, without Slurm ({', '.join(PYTHONS)})")
    parser.add_argument(
        "--core", action="store_true", help="only the scheduler contract, the main path, the endings, an array, a pilot"
    )
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="so many versions side by side (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as JSON")
    parser.add_argument("--tests", action="append", default=[], metavar="PATH", help="only these tests")
    options = parser.parse_args()
    known = PYTHONS if options.python else tuple(SUITES)
    for version in options.versions:
        if version not in known:
            parser.error(f"{version} is not one of {', '.join(known)}")
    return options


def _all_results(versions: Sequence[str], options: argparse.Namespace) -> Iterator[VersionResult]:
    """In the order of the versions; each is printed when it is there."""

    def one(version: str) -> VersionResult:
        return _on_python(version, options) if options.python else _on_slurm(version, options)

    with ThreadPoolExecutor(options.at_once) as pool:
        for result in pool.map(one, versions):
            print(f"{result.output}{_summary(result)}", flush=True)
            yield result


def _on_slurm(version: str, options: argparse.Namespace) -> VersionResult:
    try:
        name = slurm_release(version).version
    except ClusterError as error:
        return VersionResult(version, missing=str(error), exit_code=1)
    if options.core and not options.tests:
        # Two of these files take most of the time: a worker that has nothing left takes tests of another.
        chosen = ["--dist", "worksteal", *CORE]
    else:
        chosen = [*BY_FILE, *(options.tests or ["tests"])]
    return _pytest(VersionResult(version, name), sys.executable, ["-m", "slurm", *chosen], {VERSION_VARIABLE: version})


def _on_python(version: str, options: argparse.Namespace) -> VersionResult:
    try:
        python = python_environment(version, ROOT)
    except NoPythonError as error:
        # Not every one can be had everywhere; one that was named must be.
        return VersionResult(version, missing=str(error), exit_code=1 if version in options.versions else 0)
    answer = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True)
    name = answer.stdout.split()[1]
    chosen = options.tests or ("tests/unit", "tests/property", "tests/contract", "tests/integration")
    return _pytest(VersionResult(version, name), str(python), ["-m", "not slurm", *BY_FILE, *chosen], {})


def _pytest(result: VersionResult, python: str, arguments: Sequence[str], environ: dict[str, str]) -> VersionResult:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        argv = [
            *(python, "-m", "pytest", "-q", "-n", str(WORKERS)),
            # Of the formats of JUnit, the older one names each test's file.
            *(f"--junit-xml={report}", "-o", "junit_family=xunit1", "-o", f"cache_dir=.pytest_cache/{result.version}"),
        ]
        began = time.monotonic()
        done = subprocess.run(
            [*argv, *arguments],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        result.output = done.stdout
        result.seconds = time.monotonic() - began
        result.exit_code = done.returncode
        if report.exists():
            result.files = _read(report)
    return result


def _read(report: Path) -> dict[str, FileResult]:
    files: dict[str, FileResult] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        result = files.setdefault(case.get("file", "?"), FileResult())
        outcome, detail = _outcome(case)
        result.counts[outcome] += 1
        if detail:
            result.details.append(f"{outcome}: {case.get('name')}: {detail}")
    return files


def _outcome(case: ElementTree.Element) -> tuple[str, str]:
    for kind, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(kind)
        if found is not None:
            return outcome, " ".join((found.get("message") or "").split())[:200]
    return "passed", ""


def _summary(result: VersionResult) -> str:
    if result.missing:
        return f"{result.version}: not tested: {result.missing}"
    total = result.total
    return (
        f"{result.name}: {total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped "
        f"in {result.seconds:.0f} s"
    )


def _table(results: Sequence[VersionResult]) -> Iterator[str]:
    """Passed/failed/skipped of each file on each version, then what failed and why what was skipped was."""
    names = sorted({name for result in results for name in result.files})
    width = max(map(len, [*names, "test file"]))
    yield "  ".join(["test file".ljust(width), *(f"{result.name or result.version:>12}" for result in results)])
    for name in [*names, "total"]:
        counts = [
            result.total if name == "total" else result.files.get(name, FileResult()).counts for result in results
        ]
        yield "  ".join([name.ljust(width), *(f"{_cell(count):>12}" for count in counts)])
    yield "(passed, or passed/failed/skipped)"
    for result in results:
        if result.missing:
            yield f"{result.version}: {result.missing}"
        for name, found in sorted(result.files.items()):
            yield from (f"{result.name} {name}: {detail}" for detail in found.details)


def _cell(counts: Counter[str]) -> str:
    if not counts:
        return "–"
    if counts["failed"] or counts["skipped"]:
        return f"{counts['passed']}/{counts['failed']}/{counts['skipped']}"
    return str(counts["passed"])


def _as_json(result: VersionResult) -> dict[str, object]:
    return {
        "version": result.version,
        "name": result.name,
        "missing": result.missing,
        "seconds": round(result.seconds, 1),
        "total": {key: result.total[key] for key in ("passed", "failed", "skipped")},
        "files": {name: {**found.counts, "details": found.details} for name, found in sorted(result.files.items())},
    }


if __name__ == "__main__":
    sys.exit(main())
