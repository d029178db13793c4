"""scripts/coverage: figures of files become figures of packages, and a package below its floor is named."""

from __future__ import annotations

from coverage_run import FLOORS, QUICK_FLOORS, Reached, below_floor, by_package, floors_for, table


def figures(branches: int, reached: int) -> dict[str, int]:
    return {"num_statements": 10, "covered_lines": 9, "num_branches": branches, "covered_branches": reached}


def test_files_are_added_up_by_package() -> None:
    found = by_package({"domain/a.py": figures(6, 6), "domain/b.py": figures(4, 3), "clock.py": figures(0, 0)})
    assert found["domain"] == Reached(lines=20, lines_reached=18, branches=10, branches_reached=9)
    assert found["(modules)"].percent == 100
    assert found["total"].branches == 10


def test_a_package_below_its_floor_is_named() -> None:
    packages = {name: Reached(branches=100, branches_reached=95) for name in FLOORS}
    assert below_floor(packages, FLOORS) == []
    packages["daemon"].branches_reached = 94
    assert below_floor(packages, FLOORS) == ["daemon"]
    [line] = [line for line in table(packages) if line.endswith("BELOW")]
    assert line.split()[0] == "daemon"


def test_some_tests_are_not_measured_by_the_floors_of_all() -> None:
    assert floors_for([]) == FLOORS
    assert floors_for(["--quick"]) == QUICK_FLOORS
    assert floors_for(["tests/unit"]) == {}
