"""Which daemons run, and how one is stopped, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from waiting import wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.daemon.registration import DaemonRecord, DaemonRegistry, RegistrationError, matching
from hpc_agent.domain.ids import WorkerId
from hpc_agent.file_records import write_record
from hpc_agent.heartbeat import HeartbeatTiming
from hpc_agent.process_id import process_id

DAEMON = """
import signal, sys, threading
from pathlib import Path
from hpc_agent.clock import SYSTEM
from hpc_agent.daemon.registration import DaemonRegistry
from hpc_agent.domain.ids import WorkerId

end = threading.Event()
if sys.argv[3] != "stubborn":
    signal.signal(signal.SIGTERM, lambda *_: end.set())
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
daemons = DaemonRegistry(Path(sys.argv[1]), "here", SYSTEM)
name = sys.argv[2]
numbered = name.endswith(":")
made = lambda slot: WorkerId(f"{name}{slot}" if numbered else name)
presence = daemons.register(made, numbered=numbered, flags={"queue": sys.argv[3]})
print(presence.worker, flush=True)
end.wait()
daemons.unregister(presence)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def daemons(tmp_path: Path) -> DaemonRegistry:
    return DaemonRegistry(tmp_path / "daemons", "here", SYSTEM)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def one(name: str, queue: str = "q") -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", DAEMON, str(tmp_path / "daemons"), name, queue]
        started.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        started[-1].stdout.readline()
        return started[-1]

    yield one
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def enter(daemons: DaemonRegistry, worker: str) -> DaemonRecord:
    return daemons.register(lambda slot: WorkerId(worker), numbered=False, flags={})


def test_each_gets_the_smallest_free_number(daemons: DaemonRegistry, start: Start) -> None:
    for _ in range(3):
        start("host:")
    assert [daemon.worker for daemon in daemons.running()] == ["host:0", "host:1", "host:2"]
    daemons.stop(daemons.running()[1])
    start("host:")
    assert [daemon.worker for daemon in daemons.running()] == ["host:0", "host:1", "host:2"]


def test_a_named_daemon_runs_once(daemons: DaemonRegistry, start: Start) -> None:
    child = start("host:gpu0")
    with pytest.raises(RegistrationError, match=rf"running already \(process {child.pid}, since .* --stop"):
        enter(daemons, "host:gpu0")
    assert enter(daemons, "host:gpu1").worker == "host:gpu1"


def test_a_dead_daemon_leaves_its_name_to_the_next(daemons: DaemonRegistry, start: Start) -> None:
    child = start("host:gpu0")
    child.kill()
    child.wait()
    assert daemons.running() == []
    assert len(daemons.all()) == 1
    assert enter(daemons, "host:gpu0").process.pid == os.getpid()


def test_a_process_with_the_number_of_a_dead_daemon_is_not_signalled(daemons: DaemonRegistry, start: Start) -> None:
    """The number of a daemon that died goes to another process; here: the record names a time before it began."""
    child = start("host:gpu0", "stubborn")
    [seen] = daemons.all()
    other = msgspec.structs.replace(seen.process, ticks=seen.process.ticks - 1)
    forged = replace(seen, process=other)
    write_record(daemons.file(seen.worker, "json"), forged)
    assert daemons.running() == []
    daemons.stop(forged)
    assert child.poll() is None
    assert daemons.all() == []


def test_stop_ends_it_and_forgets_it(daemons: DaemonRegistry, start: Start) -> None:
    child = start("host:gpu0")
    daemons.stop(daemons.running()[0])
    assert child.wait(30) == 0
    assert daemons.all() == []


def test_one_that_does_not_end_is_killed(tmp_path: Path, start: Start) -> None:
    start("host:gpu0", "stubborn")
    ladder = [(signal.SIGTERM, 0.3), (signal.SIGKILL, 5.0)]
    daemons = DaemonRegistry(tmp_path / "daemons", "here", SYSTEM, ladder)
    [seen] = daemons.running()
    daemons.stop(seen)
    assert not seen.process.is_running()
    assert daemons.all() == []


def test_a_daemon_of_another_machine_is_named_not_guessed_at(
    daemons: DaemonRegistry, start: Start, tmp_path: Path
) -> None:
    child = start("name")
    elsewhere = DaemonRegistry(tmp_path / "daemons", "there", SYSTEM)
    [seen] = elsewhere.all()
    assert elsewhere.is_running(seen) is None
    with pytest.raises(RegistrationError, match="runs on here: stop it there; this is there"):
        elsewhere.stop(seen)
    with pytest.raises(RegistrationError, match=r"running on here, or died there: .* remove .*name\.json"):
        enter(elsewhere, "name")
    assert child.poll() is None


def test_the_name_of_a_daemon_that_died_with_its_machine_is_free_after_some_silence(
    daemons: DaemonRegistry, start: Start, tmp_path: Path
) -> None:
    child = start("name")
    child.kill()
    child.wait()
    elsewhere = DaemonRegistry(
        tmp_path / "daemons", "there", SYSTEM, pace=HeartbeatTiming(interval=0.05, expires_after=0.3)
    )
    messages: list[str] = []

    def enter() -> DaemonRecord | RegistrationError:
        try:
            return elsewhere.register(lambda slot: WorkerId("name"), numbered=False, flags={}, waiting=messages.append)
        except RegistrationError as error:  # its last beat was just now
            return error

    entered = wait_until("the name to be free", enter, lambda answer: not isinstance(answer, RegistrationError))
    assert not isinstance(entered, RegistrationError)
    assert entered.host == "there"
    assert "was on here and gives no sign of life" in messages[0]
    assert [seen.host for seen in elsewhere.all()] == ["there"]
    elsewhere.unregister(entered)
    assert [path.name for path in (tmp_path / "daemons").iterdir()] == ["lock"]


def test_a_daemon_of_another_machine_that_lives_keeps_its_name(start: Start, tmp_path: Path) -> None:
    """Though its last beat is long ago by the clock, as after an outage: it beats again while it is watched."""
    child = start("name")
    elsewhere = DaemonRegistry(
        tmp_path / "daemons", "there", SYSTEM, pace=HeartbeatTiming(interval=0.1, expires_after=20)
    )
    beat = elsewhere.file(WorkerId("name"), "beat")
    os.utime(beat, (1, 1))
    with pytest.raises(RegistrationError, match="running on here"):
        enter(elsewhere, "name")
    assert child.poll() is None


def test_a_daemon_of_an_older_version_gives_no_sign_of_life_and_keeps_its_name(start: Start, tmp_path: Path) -> None:
    start("name")
    elsewhere = DaemonRegistry(
        tmp_path / "daemons", "there", SYSTEM, pace=HeartbeatTiming(interval=0.01, expires_after=0.02)
    )
    [seen] = elsewhere.all()
    write_record(elsewhere.file(seen.worker, "json"), replace(seen, beats=False))
    with pytest.raises(RegistrationError, match="if it is certainly gone, remove"):
        enter(elsewhere, "name")


def test_a_record_that_cannot_be_read_stops_no_daemon(daemons: DaemonRegistry) -> None:
    enter(daemons, "host:gpu0")
    daemons.file(WorkerId("host:gpu0"), "json").write_text("{ half")
    assert daemons.all() == []
    assert enter(daemons, "host:gpu0").worker == "host:gpu0"


def test_strange_ids_make_no_strange_files(daemons: DaemonRegistry, tmp_path: Path) -> None:
    assert enter(daemons, "../../x y").worker == "../../x y"
    assert [path.name for path in (tmp_path / "daemons").glob("*.json")] == [".._.._x_y.json"]


def test_records_are_private(daemons: DaemonRegistry) -> None:
    enter(daemons, "host:gpu0")
    path = daemons.file(WorkerId("host:gpu0"), "json")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert json.loads(path.read_text())["worker"] == "host:gpu0"


def test_those_with_the_same_flags_are_found(daemons: DaemonRegistry, start: Start) -> None:
    start("b", "two")
    start("a", "one")
    start("c", "two")
    running = daemons.running()
    assert [daemon.worker for daemon in matching(running, {"queue": "two"})] == ["b", "c"]
    assert [daemon.worker for daemon in matching(running, {})] == ["a", "b", "c"]
    assert matching(running, {"queue": "two", "gpus": "0"}) == []


def test_a_zombie_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    found = process_id(child.pid)
    assert found is not None and found.is_running()
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not found.is_running()
    child.wait()


def hpc_agent(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user who has configured nothing: no server can be asked."""
    hidden = ("CLEARML_", "TRAINS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return subprocess.run(
        [sys.executable, "-m", "hpc_agent", *words],
        env={**env, "HOME": str(folder)},
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_status_without_a_daemon_says_so_and_ends_well(tmp_path: Path) -> None:
    status = hpc_agent(tmp_path, "daemon", "--status")
    assert (status.returncode, status.stderr) == (0, "")
    assert status.stdout == "No daemon is running on this machine; `hpc-agent daemon --queue QUEUE` starts one\n"


def test_stop_without_a_daemon_says_so_and_ends_with_1(tmp_path: Path) -> None:
    stop = hpc_agent(tmp_path, "daemon", "--stop")
    assert (stop.returncode, stop.stdout) == (1, "")
    assert stop.stderr == "error: there is no daemon to stop: none is running on this machine\n"


def test_status_of_a_queue_needs_its_server(tmp_path: Path) -> None:
    status = hpc_agent(tmp_path, "daemon", "--status", "--queue", "gpu")
    assert status.returncode == 2
    assert status.stdout.startswith("No daemon is running on this machine")
    assert "no ClearML server is configured" in status.stderr
