"""The task's process: what it starts with, and that it ends with the agent that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from waiting import wait_until

from hpc_agent.errors import ProcessError
from hpc_agent.process.supervised import Supervised

_AGENT = """
    import os, sys, threading, time
    from pathlib import Path
    from hpc_agent.process.supervised import Supervised
    thread = threading.Thread(target=time.sleep, args=(0.2,))
    thread.start()
    child = Supervised(["sleep", "300"], env=os.environ, cwd=Path("/"), output=2)
    thread.join()
    print(child.pid, flush=True)
    time.sleep(300)
"""


def output_of(argv: list[str], folder: Path) -> str:
    with (folder / "output").open("wb") as file:
        child = Supervised(argv, env=os.environ, cwd=folder, output=file.fileno())
        assert child.wait(60) == 0
    return (folder / "output").read_text(encoding="utf-8")


def lives(process: psutil.Process) -> bool:
    """Not so a zombie, which an orphan becomes once a test in this process has supervised a child."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_process_ends_with_a_killed_agent() -> None:
    agent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_AGENT)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert agent.stdout is not None
    with agent:
        child = psutil.Process(int(agent.stdout.readline()))
        assert child.status() != psutil.STATUS_ZOMBIE, "another thread's end is not the agent's"
        assert child.name() == "sleep"
        agent.kill()
    wait_until("the process to end with its agent", lambda: not lives(child))


def test_process_leads_its_session_under_the_pid_that_was_started(tmp_path: Path) -> None:
    pid, session = output_of(["sh", "-c", "echo $$; cut -d' ' -f6 /proc/$$/stat"], tmp_path).split()
    assert pid == session


def test_process_inherits_no_descriptor_but_the_standard_three(tmp_path: Path) -> None:
    # ls opens the folder that it lists.
    assert output_of(["ls", "/proc/self/fd"], tmp_path).split() == ["0", "1", "2", "3"]


def test_process_ignores_the_signals_that_it_would_ignore_anywhere(tmp_path: Path) -> None:
    """Python ignores SIGPIPE for itself: a task's ``yes | head`` must end anyway."""
    line = output_of(["grep", "SigIgn", "/proc/self/status"], tmp_path)
    ignored = int(line.split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1)) and not ignored & (1 << (signal.SIGXFSZ - 1))


def test_program_that_is_missing_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="could not start no-such-program: No such file or directory"):
        output_of(["no-such-program"], tmp_path)


def test_program_that_may_not_be_run_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("text", encoding="utf-8")
    with pytest.raises(ProcessError, match="plain: Permission denied"):
        output_of([str(tmp_path / "plain")], tmp_path)


def test_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="could not start true: No such file or directory"):
        Supervised(["true"], env=os.environ, cwd=tmp_path / "away", output=2)
