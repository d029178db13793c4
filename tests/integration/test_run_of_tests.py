"""scripts/test on small suites of its own: green means that every test ran and passed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "test_run.py"
CONFTEST = f'import sys\nsys.path.insert(0, "{ROOT}/tests/support")\npytest_plugins = ["capability_plugin"]\n'


@dataclass(frozen=True)
class Run:
    """What scripts/test printed and came to."""

    exit_code: int
    text: str
    json: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.json["counts"])


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    (folder / "conftest.py").write_text(CONFTEST)
    return folder


def run(suite: Path, *arguments: str) -> Run:
    results = suite.parent / "results.json"
    argv = [sys.executable, str(SCRIPT), "--json", str(results), *arguments, "--rootdir", str(suite), str(suite)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ["TMPDIR"] = str(suite.parent)
    done = subprocess.run(argv, cwd=suite, env=environ, text=True, capture_output=True, timeout=120, check=False)
    assert results.exists(), done.stdout + done.stderr
    return Run(done.returncode, done.stdout, json.loads(results.read_text()))


WORKERS = ("-n", "2", "--dist", "loadfile")


def test_a_failure_behind_many_others_is_found(suite: Path) -> None:
    """Whatever fails first, the last file is run as well."""
    (suite / "test_a.py").write_text("".join(f"def test_{i}(): assert False\n" for i in range(30)))
    (suite / "test_b.py").write_text("def test_good(): pass\ndef test_regression(): assert 1 == 2\n")
    done = run(suite, *WORKERS)
    assert done.exit_code == 1
    assert done.counts == {"passed": 1, "failed": 31, "skipped": 0}
    assert "FAILED test_b.py::test_regression: assert 1 == 2" in done.text


def test_a_run_that_stops_early_names_what_was_not_run(suite: Path) -> None:
    (suite / "test_a.py").write_text("".join(f"def test_{i}(): assert False\n" for i in range(5)))
    done = run(suite, "--maxfail", "2")
    assert done.exit_code == 1
    assert done.counts == {"passed": 0, "failed": 2, "skipped": 0, "not run": 3}
    assert "NOT RUN test_a.py::test_4" in done.text


def test_a_test_that_is_dropped_in_silence_is_a_failure(suite: Path) -> None:
    """Such as by a plugin that answers for pytest: pytest itself says 0."""
    (suite / "conftest.py").write_text(
        CONFTEST + "def pytest_runtest_protocol(item):\n    return True if item.name == 'test_dropped' else None\n"
    )
    (suite / "test_a.py").write_text("def test_good(): pass\ndef test_dropped(): assert False\n")
    done = run(suite)
    assert done.exit_code == 9
    assert "NOT RUN test_a.py::test_dropped" in done.text


def test_a_worker_that_dies_fails_its_test_and_the_others_run(suite: Path) -> None:
    (suite / "test_a.py").write_text("import os\ndef test_dies(): os._exit(0)\ndef test_after(): pass\n")
    (suite / "test_b.py").write_text("".join(f"def test_{i}(): pass\n" for i in range(5)))
    done = run(suite, *WORKERS)
    assert done.exit_code != 0
    assert [name for name, test in done.json["tests"].items() if test["outcome"] == "failed"] == [
        "test_a.py::test_dies"
    ]
    assert done.counts["passed"] == 6


def test_a_process_that_dies_is_a_failure(suite: Path) -> None:
    """Without workers there is nothing left that could write results."""
    (suite / "test_a.py").write_text("import os\ndef test_dies(): os._exit(0)\n")
    with pytest.raises(AssertionError, match="collected 1 item"):
        run(suite)


@pytest.mark.parametrize("workers", [(), WORKERS])
def test_a_file_that_cannot_be_collected_is_a_failure(suite: Path, workers: tuple[str, ...]) -> None:
    (suite / "test_a.py").write_text("import no_such_module\n")
    (suite / "test_b.py").write_text("def test_good(): pass\n")
    done = run(suite, *workers)
    assert done.exit_code != 0
    assert "NOT COLLECTED test_a.py: ModuleNotFoundError: No module named 'no_such_module'" in done.text


@pytest.mark.parametrize("arguments", [(), WORKERS, ("-k", "nothing_matches")])
def test_no_test_at_all_is_a_failure(suite: Path, arguments: tuple[str, ...]) -> None:
    (suite / "test_a.py").write_text("def test_good(): pass\n" if "-k" in arguments else "")
    done = run(suite, *arguments)
    assert done.exit_code != 0
    assert "NOT RUN: no test was found" in done.text


def test_a_failed_run_keeps_its_folders_and_a_good_one_none(suite: Path) -> None:
    (suite / "test_a.py").write_text("def test_writes(tmp_path): (tmp_path / 'log').write_text('x'); assert False\n")
    failed = run(suite)
    [log] = Path(failed.json["evidence"]).rglob("log")
    assert f"are kept in {failed.json['evidence']}" in failed.text
    (suite / "test_a.py").write_text("def test_writes(tmp_path): (tmp_path / 'log').write_text('x')\n")
    good = run(suite)
    assert (good.exit_code, good.json["evidence"]) == (0, None)
    assert list(suite.parent.rglob("log")) == [log]


MISSING = "from capabilities import missing\ndef test_needs():\n    missing('podman', 'no podman here')\n"


def test_a_skip_is_listed_with_its_reason(suite: Path) -> None:
    (suite / "test_a.py").write_text(MISSING + "def test_good(): pass\n")
    done = run(suite)
    assert (done.exit_code, done.counts) == (0, {"passed": 1, "failed": 0, "skipped": 1})
    assert "test_a.py::test_needs: podman: no podman here" in done.text


def test_what_is_required_and_missing_fails(suite: Path) -> None:
    (suite / "test_a.py").write_text("import pytest\npytestmark = pytest.mark.podman\n" + MISSING)
    done = run(suite, "--require", "podman")
    assert done.exit_code == 1
    assert "FAILED test_a.py::test_needs: podman is required and cannot be had here: no podman here" in done.text


def test_what_is_required_in_vain_fails(suite: Path) -> None:
    """Nothing was shown of it."""
    (suite / "test_a.py").write_text("def test_good(): pass\n")
    done = run(suite, "--require", "slurm")
    assert done.exit_code == 9
    assert "NOT CHECKED slurm is required, but no test of this run needs it" in done.text


def test_a_capability_that_does_not_exist_is_an_error() -> None:
    argv = [sys.executable, str(SCRIPT), "--require", "slrum,podman"]
    done = subprocess.run(argv, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no capability is named slrum; there are slurm, " in done.stderr


def test_results_for_programs(suite: Path, tmp_path: Path) -> None:
    (suite / "test_a.py").write_text("def test_good(): pass\ndef test_bad(): assert False\n")
    done = run(suite, "--junit", str(tmp_path / "junit.xml"), *WORKERS)
    assert {name: test["outcome"] for name, test in done.json["tests"].items()} == {
        "test_a.py::test_good": "passed",
        "test_a.py::test_bad": "failed",
    }
    cases = ElementTree.parse(tmp_path / "junit.xml").iter("testcase")
    assert {case.get("name"): case.find("failure") is not None for case in cases} == {
        "test_good": False,
        "test_bad": True,
    }


def test_no_test_skips_but_by_naming_a_capability() -> None:
    words = ("pytest.skip", "skipif", "importorskip", "mark.xfail", "unittest.skip")
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path not in (Path(__file__), ROOT / "tests" / "support" / "capabilities.py")
        for word in words
        if word in path.read_text(encoding="utf-8")
    ]
    assert found == []
