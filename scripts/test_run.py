"""Runs the tests once and says what became of each: no retry, and no test that was not reached goes unnoticed.

    scripts/test                             the checks, and every test
    scripts/test --quick                     the tests that need no service, for every save; no checks
    scripts/test --require slurm,podman      a test that lacks one of these fails instead of being skipped
    scripts/test --workers 0                 in so many processes at once; 0: in this one
    scripts/test --json FILE --junit FILE    the results for a program as well
    scripts/test tests/unit -k name          other arguments go to pytest, which then runs these tests alone, no checks

Exit code 0 only if every collected test ran and none failed; 2 for an argument that does not exist; else pytest's own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_results import Recorder, Results, as_json, summary

if TYPE_CHECKING:
    from test_scheduling import FileScheduling
    from xdist.remote import Producer

ROOT = Path(__file__).parents[1]
FOLDERS = tuple(f"tests/{name}" for name in ("e2e", "contract", "integration", "property", "unit"))
"""Those that wait longest come first."""
WORKERS = 9
"""Most tests wait most of the time: on two cores, nine at once keep them busy. The quick ones hardly wait."""
NOT_ALL_RAN = 9


def main(argv: Sequence[str]) -> int:
    options, rest = _arguments(argv)
    required = _required(options.require)
    whole = not rest and not options.quick
    # At the same time: mypy takes one processor for a minute. What it says appears among the tests' dots.
    check = subprocess.Popen([ROOT / "scripts" / "check"]) if whole else None
    if whole:
        compile_tests()
    folder = Path(tempfile.mkdtemp(prefix="hpc-tests-"))
    recorder = Recorder(required)
    exit_code = pytest.main([*_pytest_arguments(options, rest), f"--basetemp={folder / 't'}"], [recorder, SharedOut()])
    checked = check.wait() if check else 0
    results = recorder.results
    results.exit_code = verdict(int(exit_code), results) or checked
    results.evidence = _keep_or_remove(folder, keep=bool(results.exit_code))
    if options.json:
        options.json.write_text(as_json(results), encoding="utf-8")
    print("\n".join(summary(results)))
    if checked:
        print("scripts/check failed: see above")
    return results.exit_code


def compile_tests() -> None:
    """Have pytest rewrite the tests' assertions once in a new checkout, and keep that.

    Workers that begin at the same time would each do it, which takes three times as long as all else in their
    collection. They are the ones to say what is wrong with a test.
    """
    argv = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *FOLDERS]
    subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


class SharedOut:
    """A plugin that shares out the tests among the workers of xdist."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Producer) -> FileScheduling:
        # Not sooner: pytest wants to be the first to import its plugins.
        from test_scheduling import FileScheduling

        config.option.loadscopereorder = False
        return FileScheduling(config, log)


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="only the tests that need no service")
    parser.add_argument("--require", default="", metavar="NAMES", help="capabilities that must be here, by commas")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that run tests (from the processors)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results there in JUnit's format")
    return parser.parse_known_args(argv)


def _required(names: str) -> frozenset[str]:
    sys.path.append(str(ROOT / "tests" / "support"))
    from capabilities import UnknownCapabilityError, parse_names

    try:
        return parse_names(names)
    except UnknownCapabilityError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _pytest_arguments(options: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """What was not asked for in ``rest`` is set here."""
    arguments = ["-rN", *rest]
    if options.quick:
        arguments += ["-m", "quick", *([] if _names_tests(rest) else FOLDERS[3:])]
    elif not rest:
        arguments += FOLDERS
    if options.quick or not rest or options.workers is not None:
        usual = min(WORKERS, (os.cpu_count() or 1) + 1) if options.quick else WORKERS
        workers = usual if options.workers is None else options.workers
        arguments += ["-q", *(["-n", str(workers), "--dist", "loadfile"] if workers else [])]
    if options.require:
        arguments += ["--require", options.require]
    if options.junit:
        arguments += ["--junit-xml", str(options.junit)]
    return arguments


def _names_tests(rest: Sequence[str]) -> bool:
    return any(Path(argument.partition("::")[0]).exists() for argument in rest)


def verdict(exit_code: int, results: Results) -> int:
    """pytest's exit code, unless that is 0 and not all was well."""
    bad = results.not_run or results.failed or results.errors or results.unused or not results.tests
    return NOT_ALL_RAN if bad and not exit_code else exit_code


def _keep_or_remove(folder: Path, *, keep: bool) -> Path | None:
    """The temporary folders of all tests stay where something failed."""
    if keep and any(folder.iterdir()):
        return folder
    # Environments and caches are read-only. That takes half a minute: it goes on by itself.
    argv = ["sh", "-c", 'chmod -R u+w "$1"; rm -rf "$1"', "sh", str(folder)]
    subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
