"""Coverage of the lines and branches of hpc_agent by the tests, package by package, in the programs that they start
too.

    scripts/coverage                          # runs every test, as scripts/test does
    scripts/coverage --quick                  # arguments go to scripts/test
    scripts/coverage --json FILE tests/unit   # the figures for a program as well
    scripts/coverage --lines daemon           # what the tests of the last run did not reach of a package

Some packages have a floor: exit code 1 if, after a run of every test, fewer of their branches are reached; of domain,
which needs no service, after a run of the quick tests.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hpc_agent"
DATA = ROOT / ".coverage-data"
FLOORS: Mapping[str, float] = {"domain": 95, "executor": 95, "daemon": 95}
"""Packages that decide and that run tasks → percentage of their branches."""
QUICK_FLOORS: Mapping[str, float] = {"domain": 95}
"""Of those that need no service."""
NOT_REACHED = 1


@dataclass
class Reached:
    """Of one package."""

    lines: int = 0
    lines_reached: int = 0
    branches: int = 0
    branches_reached: int = 0

    @property
    def percent(self) -> float:
        """Of the branches; 100 if there are none."""
        return 100 * self.branches_reached / self.branches if self.branches else 100


def main(argv: Sequence[str]) -> int:
    options, tests = _arguments(argv)
    if options.lines:
        return _show_lines(options.lines)
    exit_code = measure(tests)
    packages = by_package(_report())
    print("\n".join(table(packages)))
    if options.json:
        options.json.write_text(json.dumps(_as_json(packages), indent=2) + "\n", encoding="utf-8")
    return exit_code or (NOT_REACHED if below_floor(packages, floors_for(tests)) else 0)


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="coverage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--lines", metavar="PACKAGE", help="what no test of the last run reached of a package")
    return parser.parse_known_args(argv)


def measure(tests: Sequence[str]) -> int:
    """Run tests and combine what all processes have written; returns the exit code of the tests."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()
    settings = [f"--rcfile={ROOT / 'pyproject.toml'}", f"--data-file={DATA / 'data'}"]
    coverage = [sys.executable, "-m", "coverage"]
    run = [*coverage, "run", *settings, str(ROOT / "scripts" / "test_run.py"), *tests]
    exit_code = subprocess.run(run, cwd=ROOT, check=False).returncode
    # Processes that are killed while they write leave half a file: that it cannot be read is not an error of the tests.
    subprocess.run([*coverage, "combine", "--quiet", *settings, str(DATA)], cwd=ROOT, check=True)
    return exit_code


def _loaded() -> Coverage:
    found = Coverage(data_file=str(DATA / "data"), config_file=str(ROOT / "pyproject.toml"))
    found.load()
    return found


def _report() -> Mapping[str, Mapping[str, int]]:
    """Each file below hpc_agent → the figures of coverage's JSON report."""
    path = DATA / "report.json"
    # Files that no process imported count as well.
    _loaded().json_report(outfile=str(path))
    files = json.loads(path.read_text(encoding="utf-8"))["files"]
    return {
        str((ROOT / name).relative_to(PACKAGE)): report["summary"]
        for name, report in files.items()
        if (ROOT / name).is_relative_to(PACKAGE)
    }


def by_package(files: Mapping[str, Mapping[str, int]]) -> dict[str, Reached]:
    """The modules outside the packages are one row, ``(modules)``."""
    found: dict[str, Reached] = defaultdict(Reached)
    for name, summary in files.items():
        package = Path(name).parts[0] if "/" in name else "(modules)"
        for row in (found[package], found["total"]):
            row.lines += summary["num_statements"]
            row.lines_reached += summary["covered_lines"]
            row.branches += summary["num_branches"]
            row.branches_reached += summary["covered_branches"]
    return found


def floors_for(tests: Sequence[str]) -> Mapping[str, float]:
    """The floors that these tests are expected to hold: some of the tests reach some of the branches."""
    if not tests:
        return FLOORS
    return QUICK_FLOORS if list(tests) == ["--quick"] else {}


def below_floor(packages: Mapping[str, Reached], floors: Mapping[str, float]) -> list[str]:
    return [name for name, floor in floors.items() if packages[name].percent < floor]


def table(packages: Mapping[str, Reached]) -> Iterator[str]:
    yield f"{'package':<14}{'lines':>8}{'reached':>9}{'branches':>10}{'reached':>9}{'floor':>8}"
    names = sorted(packages, key=lambda name: (name == "total", name))
    for name in names:
        row = packages[name]
        lines = 100 * row.lines_reached / row.lines if row.lines else 100
        floor = f"{FLOORS[name]} %" if name in FLOORS else ""
        missed = "  BELOW" if name in below_floor(packages, FLOORS) else ""
        yield f"{name:<14}{row.lines:>8}{lines:>7.1f} %{row.branches:>10}{row.percent:>7.1f} %{floor:>8}{missed}"


def _as_json(packages: Mapping[str, Reached]) -> dict[str, object]:
    return {
        "packages": {name: {**vars(row), "percent": round(row.percent, 1)} for name, row in packages.items()},
        "goals": [
            {
                "name": f"branches of {name} reached, %",
                "value": round(packages[name].percent, 1),
                "bound": floor,
                "met": packages[name].percent >= floor,
            }
            for name, floor in FLOORS.items()
        ],
    }


def _show_lines(package: str) -> int:
    _loaded().report(include=[str(PACKAGE / package / "*")], show_missing=True, skip_covered=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
