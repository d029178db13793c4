"""Requests are counted by day, host and command; a folder that cannot be written costs only the counts."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from manual_clock import ManualClock
from waiting import HANG_S

from hpc_agent.request_counts import COUNTS, RequestCounts, read_counts
from hpc_agent.schedulers.registry import QUERY_COMMANDS

CLOCK = ManualClock()
TODAY = CLOCK.now().astimezone().date()


def counts(folder: Path, program: str) -> RequestCounts:
    found = RequestCounts(CLOCK)
    found.keep(folder, program)
    return found


def test_what_several_programs_count_is_added_up(tmp_path: Path) -> None:
    for _ in range(2):
        daemon = counts(tmp_path / "stats", "daemon")
        for _ in range(3):
            daemon.add("scheduler", "squeue")
        daemon.add("server", "tasks.get_all")
        daemon.save()
    job = counts(tmp_path / "stats", "execute")
    job.add("server", "tasks.ping")
    job.save()
    job.save()
    found = read_counts(tmp_path / "stats", TODAY)
    assert [(row.program, row.scheduler, row.server) for row in found] == [
        ("daemon", {"squeue": 6}, {"tasks.get_all": 2}),
        ("execute", {}, {"tasks.ping": 1}),
    ]


def test_hours_have_counts_of_their_own(tmp_path: Path) -> None:
    clock = ManualClock()
    daemon = RequestCounts(clock)
    daemon.keep(tmp_path / "stats", "daemon")
    first = f"{clock.now().astimezone():%H}"
    for number in (1, 2):
        for _ in range(number):
            daemon.add("scheduler", "squeue")
        daemon.save()
        clock.advance(hours=1)
    found = read_counts(tmp_path / "stats", date.min, by_hour=True)
    assert [row.scheduler["squeue"] for row in found] == [1, 2]
    assert found[0].hour == first != found[1].hour
    assert sum(row.scheduler["squeue"] for row in read_counts(tmp_path / "stats", date.min)) == 3


def test_stats_shows_each_hour(tmp_path: Path) -> None:
    configuration = tmp_path / "clearml.conf"
    configuration.write_text(f'hpc.root: "{tmp_path}"\n')
    configuration.chmod(0o600)
    daemon = RequestCounts()
    daemon.keep(tmp_path / "stats", "daemon")
    daemon.add("scheduler", "squeue")
    daemon.add("scheduler", "sbatch")
    daemon.save()
    argv = [sys.executable, "-m", "hpc_agent", "stats", "--by-hour", "--by-program", "--last", "2d"]
    env = {**os.environ, "CLEARML_CONFIG_FILE": str(configuration)}
    done = subprocess.run(argv, env=env, text=True, capture_output=True, timeout=HANG_S, check=True)
    [_, row] = done.stdout.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:00  daemon +2  squeue 1, sbatch 1 +0", row), row


def test_day_of_an_older_version_has_no_hours(tmp_path: Path) -> None:
    (tmp_path / f"{TODAY}.other.json").write_text('{"programs": {"daemon": {"scheduler": {"squeue": 5}}}}')
    [row] = read_counts(tmp_path, TODAY, by_hour=True)
    assert (row.hour, row.scheduler) == ("", {"squeue": 5})


def test_threads_and_processes_lose_none(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from hpc_agent.request_counts import COUNTS\n"
        "COUNTS.keep(Path(sys.argv[1]), 'p')\n"
        "for _ in range(20): COUNTS.add('server', 'x'); COUNTS.save()\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "stats")]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: subprocess.run(argv, check=True, timeout=HANG_S), range(4)))
    # Midnight may come meanwhile.
    assert sum(row.server["x"] for row in read_counts(tmp_path / "stats", date.min)) == 80


def test_a_program_that_goes_on_saves_meanwhile(tmp_path: Path) -> None:
    clock = ManualClock()
    daemon = RequestCounts(clock)
    daemon.keep(tmp_path / "stats", "daemon", saves_between=True)
    daemon.add("scheduler", "squeue")
    assert not (tmp_path / "stats").exists()
    clock.advance(61)
    daemon.add("scheduler", "squeue")
    [file] = (tmp_path / "stats").glob("*.json")
    assert json.loads(file.read_text())["programs"] == {"daemon": {"scheduler": {"squeue": 2}}}


def test_a_program_that_was_stopped_with_the_lock_holds_up_other_counts(tmp_path: Path) -> None:
    folder = tmp_path / "stats"
    daemon = counts(folder, "daemon")
    daemon.add("scheduler", "squeue")
    daemon.save()
    [name] = folder.glob(".*.lock")
    with name.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        daemon.add("scheduler", "squeue")
        daemon.save()
    daemon.save()
    [row] = read_counts(folder, TODAY)
    assert row.scheduler == {"squeue": 2}


def test_old_days_are_removed_and_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "stats"
    folder.mkdir()
    text = '{"programs": {"daemon": {"scheduler": {"squeue": 1}}}}'
    for days in (60, 5):
        (folder / f"{TODAY - timedelta(days=days)}.other.json").write_text(text)
        # Of a program that ended while it saved.
        (folder / f".{TODAY - timedelta(days=days)}.other.json.12.ab34.tmp").write_text("")
    (folder / f"{TODAY}.broken.json").write_text("{")
    (folder / "notes.txt").write_text("mine")
    daemon = counts(folder, "daemon")
    daemon.add("scheduler", "squeue")
    daemon.save()
    assert [row.day for row in read_counts(folder, date.min)] == [str(TODAY - timedelta(days=5)), str(TODAY)]
    assert [row.day for row in read_counts(folder, TODAY)] == [str(TODAY)]
    assert (folder / "notes.txt").exists()
    assert [path.name[:11] for path in folder.glob(".*.tmp")] == [f".{TODAY - timedelta(days=5)}"]


def test_a_folder_that_cannot_be_written_costs_the_counts_only(tmp_path: Path) -> None:
    (tmp_path / "stats").write_text("a file")
    lost = counts(tmp_path / "stats", "daemon")
    lost.add("scheduler", "squeue")
    lost.save()
    nowhere = counts(tmp_path / "hpc" / "stats", "list")
    nowhere.add("server", "workers.get_all")
    nowhere.save()
    assert not (tmp_path / "hpc").exists()
    assert read_counts(tmp_path / "stats", TODAY) == read_counts(tmp_path / "hpc", TODAY) == []


@pytest.mark.parametrize(
    ("argv", "counted"), [(["squeue", "-h"], 1), (["/opt/slurm/bin/sinfo"], 1), (["qstat"], 1), (["git"], 0)]
)
def test_a_schedulers_commands_are_counted_however_they_are_called(
    argv: list[str], counted: int, tmp_path: Path
) -> None:
    requests = RequestCounts()
    requests.keep(tmp_path / "stats", "daemon", QUERY_COMMANDS)
    requests.count_command(argv)
    assert requests.so_far() == counted


def test_a_forked_process_begins_at_nothing() -> None:
    COUNTS.add("scheduler", "squeue")
    child = os.fork()
    if not child:
        os._exit(COUNTS.so_far())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_file_names_its_host(tmp_path: Path) -> None:
    one = counts(tmp_path / "stats", "daemon")
    one.add("scheduler", "squeue")
    one.save()
    [file] = (tmp_path / "stats").glob("*.json")
    assert file.name == f"{TODAY}.{socket.gethostname()}.json"
