"""A Unix user that has a number and no line in the password file, as in some containers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NUMBER = 54321
# The interpreter may lie in root's home.
MAY = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
AS_USER = ("setpriv", f"--reuid={NUMBER}", f"--regid={NUMBER}", "--clear-groups", *MAY)

pytestmark = pytest.mark.root


def agent(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    argv = [*AS_USER, sys.executable, "-m", "hpc_agent", *arguments]
    environ = {"PATH": "/usr/bin:/bin", **environ}
    return subprocess.run(argv, cwd="/", env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "arguments", [("config",), ("list",), ("daemon", "--queue", "q"), ("execute", "--id", "a" * 32)]
)
def test_without_a_home_the_message_asks_for_one(arguments: tuple[str, ...]) -> None:
    done = agent(*arguments)
    assert done.returncode == 2
    assert f"HOME is not set, and the password file has no line for user {NUMBER}" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_a_home_it_has_its_configuration(tmp_path: Path) -> None:
    done = agent("config", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_its_name_is_its_number() -> None:
    program = "from hpc_agent.access import user_name; print(user_name())"
    argv = [*AS_USER, sys.executable, "-c", program]
    done = subprocess.run(argv, cwd="/", env={}, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{NUMBER}\n"
