"""What a task prints reaches the console's file whatever the file system, the agent or the writer meet."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from faulty_share import Share
from waiting import equals, wait_until

from hpc_agent.telemetry.console_pipe import ConsolePipe

LONG = 30.0
_FSIZE = resource.RLIMIT_FSIZE


@pytest.fixture
def console(tmp_path: Path) -> Path:
    return tmp_path / "console.log"


def prints(pipe: ConsolePipe, program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=pipe.sink, stderr=pipe.sink)


def state_of(pid: int) -> str:
    """``R``, ``S``, ``Z`` …, as ps shows it; ``X`` where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def lines(console: Path) -> list[str]:
    if not console.exists():
        return []
    return console.read_text(encoding="utf-8").splitlines()


def test_a_task_that_prints_does_not_notice_a_file_system_that_refuses(console: Path) -> None:
    pipe = ConsolePipe(console)
    before, hard = resource.prlimit(pipe.writer, _FSIZE)
    pipe.write(b"started\n")
    wait_until("the console", console.exists)
    resource.prlimit(pipe.writer, _FSIZE, (100, hard))
    child = prints(pipe, "for n in range(1000): print('line', n)")
    assert child.wait(LONG) == 0
    wait_until("the trouble to be seen", lambda: pipe.write_error)
    resource.prlimit(pipe.writer, _FSIZE, (before, hard))
    assert pipe.close(LONG)
    assert lines(console) == ["started", *(f"line {n}" for n in range(1000))]
    assert pipe.write_error == "File too large"


@pytest.mark.fuse
def test_output_after_the_loss_of_an_nfs_lease_is_kept_and_the_task_goes_on(share: Share) -> None:
    console = share.path / "console.log"
    pipe = ConsolePipe(console)
    read, write = os.pipe()
    program = "import sys\nprint('before', flush=True)\nsys.stdin.read()\nprint('after')"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=read, stdout=pipe.sink, stderr=pipe.sink)
    wait_until("its lines", lambda: lines(console), equals(["before"]))
    share.lose_what_is_open()
    os.close(read)
    os.close(write)
    assert child.wait(LONG) == 0
    assert pipe.close(LONG)
    assert lines(console) == ["before", "after"]


@pytest.mark.fuse
def test_a_file_system_that_stalls_holds_up_neither_the_task_nor_our_own_lines(share: Share) -> None:
    console = share.path / "console.log"
    pipe = ConsolePipe(console)
    pipe.write(b"first\n")
    wait_until("its lines", lambda: lines(console), equals(["first"]))
    share.stall()
    # More than fits into a pipe.
    child = prints(pipe, "for n in range(50_000): print('a line of forty characters, or so', n)")
    assert child.wait(LONG) == 0
    pipe.write(b"last\n")
    assert not pipe.close(0.2)
    share.answer_again()
    assert pipe.close(LONG)
    found = lines(console)
    assert (found[0], found[-1], len(found)) == ("first", "last", 50_002)


def test_what_was_printed_before_the_agent_was_killed_is_on_disk(console: Path) -> None:
    agent = (
        "import os, signal, subprocess, sys\n"
        "from pathlib import Path\n"
        "from hpc_agent.telemetry.console_pipe import ConsolePipe\n"
        f"pipe = ConsolePipe(Path({str(console)!r}))\n"
        "pipe.write(b'started\\n')\n"
        "subprocess.run(['seq', '20000'], stdout=pipe.sink)\n"
        "subprocess.Popen(['sh', '-c', 'sleep 0.3; echo left behind'], stdout=pipe.sink)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", agent], timeout=LONG, check=False).returncode == -signal.SIGKILL
    wait_until("its last line", lambda: lines(console)[-1:], equals(["left behind"]))
    assert lines(console) == ["started", *map(str, range(1, 20_001)), "left behind"]


def test_the_death_of_the_writer_is_none_of_the_tasks_business(console: Path) -> None:
    pipe = ConsolePipe(console)
    pipe.write(b"before\n")
    wait_until("its lines", lambda: lines(console), equals(["before"]))
    first = pipe.writer
    os.kill(first, signal.SIGKILL)
    # On a busy machine it may still be in the middle of a read, and would take with it what it gets.
    wait_until("the writer to be dead", lambda: state_of(first), lambda state: state in "ZX")
    child = prints(pipe, "print('after', flush=True)")
    assert child.wait(LONG) == 0
    wait_until("another writer", lambda: pipe.writer, lambda writer: writer != first)
    assert pipe.close(LONG)
    assert lines(console) == ["before", "after"]


REOPENED = [
    ("sh", "echo one; echo two > /dev/stderr; echo three > /dev/stdout; echo four >> /dev/stderr; echo five"),
    (
        sys.executable,
        "import logging, sys; print('one', flush=True)\n"
        "log = logging.FileHandler('/dev/stdout'); log.emit(logging.makeLogRecord({'msg': 'two'}))\n"
        "print('three', flush=True)\n"
        "open('/dev/stderr', 'w').write('four\\n'); print('five', flush=True)",
    ),
]


@pytest.mark.parametrize(("program", "text"), REOPENED, ids=["shell", "python"])
def test_a_task_that_opens_its_own_output_again_loses_nothing(program: str, text: str, console: Path) -> None:
    pipe = ConsolePipe(console)
    pipe.write(b"zero\n")
    wait_until("its lines", lambda: lines(console), equals(["zero"]))
    done = subprocess.run([program, "-c", text], stdout=pipe.sink, stderr=pipe.sink, check=False, timeout=LONG)
    assert done.returncode == 0
    assert pipe.close(LONG)
    assert lines(console) == ["zero", "one", "two", "three", "four", "five"]


def test_a_console_that_is_emptied_goes_on_from_its_beginning(console: Path) -> None:
    pipe = ConsolePipe(console)
    pipe.write(b"before\n")
    wait_until("the first line", lambda: console.exists() and console.read_text(encoding="utf-8") == "before\n")
    os.truncate(console, 0)
    pipe.write(b"after\n")
    assert pipe.close(LONG)
    assert console.read_bytes() == b"after\n"


def test_a_line_that_is_late_gets_into_no_other_file(console: Path, tmp_path: Path) -> None:
    """A thread may speak while another one closes; descriptors are given out again at once."""
    pipe = ConsolePipe(console)
    assert pipe.close(LONG)
    with ExitStack() as stack:
        others = [stack.enter_context((tmp_path / str(number)).open("wb", buffering=0)) for number in range(8)]
        pipe.write(b"late\n")
        assert [Path(other.name).read_bytes() for other in others] == [b""] * 8


def test_our_own_line_begins_on_a_line_of_its_own(console: Path) -> None:
    pipe = ConsolePipe(console)
    prints(pipe, "print('loss=0.5', end='')").wait(LONG)
    pipe.write(b"Process completed successfully\n")
    assert pipe.close(LONG)
    assert lines(console) == ["loss=0.5", "Process completed successfully"]
    again = ConsolePipe(console)
    prints(again, "print('again', end='')").wait(LONG)
    again.write(b"done\n")
    assert again.close(LONG)
    assert lines(console) == ["loss=0.5", "Process completed successfully", "again", "done"]


def test_our_lines_are_where_they_were_printed(console: Path) -> None:
    pipe = ConsolePipe(console)
    expected = []
    for number in range(200):
        pipe.write(f"ours {number}\n".encode())
        os.write(pipe.sink, f"theirs {number}\n".encode())
        expected += [f"ours {number}", f"theirs {number}"]
    long = "x" * 20_000
    pipe.write(f"{long}\n".encode())
    assert pipe.close(LONG)
    assert lines(console) == [*expected, long]


def test_a_process_left_behind_does_not_hold_up_the_end(console: Path) -> None:
    pipe = ConsolePipe(console)
    left = subprocess.Popen(["sleep", "60"], stdout=pipe.sink)
    prints(pipe, "print('done')").wait(LONG)
    try:
        assert pipe.close(LONG)
    finally:
        left.kill()
        left.wait()
    assert lines(console) == ["done"]


def test_a_full_disk_costs_lines_and_says_so_but_never_the_task(console: Path) -> None:
    pipe = ConsolePipe(console)
    before, hard = resource.prlimit(pipe.writer, _FSIZE)
    resource.prlimit(pipe.writer, _FSIZE, (30, hard))
    block = 1 << 20
    child = prints(pipe, f"import sys\nfor n in range(80): sys.stdout.write('x' * ({block} - 1) + '\\n')")
    assert child.wait(LONG) == 0
    resource.prlimit(pipe.writer, _FSIZE, (before, hard))
    wait_until("60 blocks", lambda: console.stat().st_size, lambda size: size > 60 * block)
    pipe.write(b"last\n")
    assert pipe.close(LONG)
    found = lines(console)
    assert found[-1] == "last"
    assert found[-2].startswith("[") and found[-2].endswith("bytes of output were lost: File too large]")
    assert len(found) < 80
