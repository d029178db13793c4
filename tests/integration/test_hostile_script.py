"""scripts/test-hostile: each environment is what it is called, and a failure in one of them is one of the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hostile_run import ENVIRONMENTS, OF_NO_ENVIRONMENT, ROOT, UNKNOWN_USER, main, run
from waiting import HANG_S, wait_until

PROBE = """
import os, signal, sys, time
umask = os.umask(0)
ignored = [s.name for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) == signal.SIG_IGN]
seen = [umask, ignored, sys.stdin.isatty(), sys.getfilesystemencoding(), time.timezone, os.getuid()]
print(*seen, file=open(sys.argv[1], "w"))
"""


def seen_in(name: str, folder: Path) -> str:
    hostile = ENVIRONMENTS[name](folder)
    target = folder / "seen"
    program = [sys.executable, "-I", "-X", "utf8=0", "-c", PROBE, str(target)]
    assert run(hostile, [*hostile.prefix, *program])[0] == 0
    return target.read_text(encoding="ascii").strip()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ascii", "63 [] False ascii -50400 0"),
        pytest.param(
            "latin-1",
            "0 ['SIGINT', 'SIGTERM', 'SIGHUP'] False iso8859-1 {timezone} 0",
            marks=pytest.mark.locales,
        ),
        ("inherited", "18 [] False utf-8 12600 0"),
        ("terminal", f"18 [] True utf-8 {{timezone}} {UNKNOWN_USER}"),
    ],
)
@pytest.mark.root
def test_it_is_what_it_is_called(name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("TZ", "UTC")
    assert seen_in(name, tmp_path) == expected.format(timezone=0)


def test_what_fails_in_one_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    test = tmp_path / "test_home.py"
    test.write_text(
        "import os\nimport pytest\n\n@pytest.mark.quick\ndef test_home():\n    assert 'HOME' in os.environ\n"
    )
    exit_code = main(["ascii", "inherited", "--", str(test), "--rootdir", str(tmp_path), "-c", os.devnull])
    assert exit_code == 1
    assert "failed in: ascii\n" in capfd.readouterr().out


def test_an_environment_that_does_not_exist_is_an_error() -> None:
    script = Path(__file__).parents[2] / "scripts" / "hostile_run.py"
    done = subprocess.run([sys.executable, str(script), "latin-2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "latin-2 is not one of ascii, latin-1, inherited, terminal" in done.stderr


@pytest.mark.parametrize("file", OF_NO_ENVIRONMENT)
def test_what_is_left_out_is_there(file: str) -> None:
    assert (ROOT / file).is_file()


@pytest.mark.locales
def test_ctrl_c_ends_what_runs_in_them(tmp_path: Path) -> None:
    """Also where SIGINT is ignored, as it is in latin-1."""
    test = tmp_path / "test_waits.py"
    test.write_text(
        "import os, pathlib, time\nimport pytest\n\n@pytest.mark.quick\ndef test_waits():\n"
        f"    pathlib.Path({str(tmp_path)!r}, f'{{os.getpid()}}.pid').touch()\n    time.sleep(600)\n"
    )
    script = ROOT / "scripts" / "hostile_run.py"
    arguments = ["inherited", "latin-1", "--", str(test), "--rootdir", str(tmp_path), "-c", os.devnull]
    running = subprocess.Popen([sys.executable, str(script), *arguments], start_new_session=True)
    wait_until("both to run", lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    running.send_signal(signal.SIGINT)
    assert running.wait(HANG_S) != 0
    pids = [int(file.stem) for file in tmp_path.glob("*.pid")]
    wait_until("both to be gone", lambda: not any(map(psutil.pid_exists, pids)))
