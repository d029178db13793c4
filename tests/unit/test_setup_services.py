"""The daemon as a systemd unit and as a line of a crontab."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from capabilities import missing

from hpc_agent.setup.daemon_service import (
    cron_line,
    daemon_command,
    periodic_command,
    service_environment,
    systemd_unit,
)

COMMAND = daemon_command(["/opt/my env/bin/hpc-agent"], "/home/ann/50%.conf", ["gpu", 'a "b" $c'])


def test_the_command_names_the_file_only_where_it_is_not_the_usual_one() -> None:
    assert COMMAND[1:4] == ["--config-file", "/home/ann/50%.conf", "daemon"]
    assert daemon_command(["hpc-agent"], "", ["gpu"]) == ["hpc-agent", "daemon", "--queue", "gpu"]


def test_a_unit_escapes_what_systemd_would_read_as_something_else() -> None:
    unit = "\n".join(systemd_unit(COMMAND, {"PATH": "/a b:/bin", "X": "$1 50%"}))
    assert '"/opt/my env/bin/hpc-agent" --config-file /home/ann/50%%.conf daemon --queue gpu' in unit
    assert '"a \\"b\\" $$c" --foreground' in unit
    assert 'Environment="PATH=/a b:/bin"' in unit
    assert 'Environment="X=$1 50%%"' in unit


@pytest.mark.systemd
def test_systemd_finds_no_fault_in_a_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("systemd", "systemd-analyze is not installed")
    unit = tmp_path / "hpc-agent.service"
    unit.write_text("\n".join(systemd_unit(["/bin/sh", *COMMAND[1:]], {"PATH": "/a b:/bin"})) + "\n")
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)],
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_crontabs_command_runs_as_it_is_meant(tmp_path: Path) -> None:
    program = tmp_path / "my program"
    program.write_text('#!/bin/sh\nprintf "%s|" "$SLURM_CONF" "$@"\n')
    program.chmod(0o755)
    log = tmp_path / "the 1% log"
    line = cron_line(
        periodic_command(daemon_command([str(program)], "", ["a b", "100%"]), {"SLURM_CONF": "/x y"}, str(log))
    )
    schedule, command = line[: len("*/5 * * * * ")], line[len("*/5 * * * * ") :]
    assert schedule == "*/5 * * * * "
    # cron takes the backslash away, and would end the command at % without it.
    assert "%" not in command.replace("\\%", "")
    subprocess.run(
        ["/bin/sh", "-c", command.replace("\\%", "%")], check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    )
    assert log.read_text() == "/x y|daemon|--queue|a b|100%|--once|"


def test_a_service_gets_what_finds_the_scheduler_and_the_site() -> None:
    environ = {"SLURM_CONF": "/etc/slurm.conf", "HPC_AGENT_SITE_CONFIG": "/site", "TOKEN": "x", "SGE_ROOT": "a\nb"}
    found = service_environment(environ, ("SLURM_CONF", "SGE_ROOT"))
    assert found == {"SLURM_CONF": "/etc/slurm.conf", "HPC_AGENT_SITE_CONFIG": "/site"}
    assert shlex.split(periodic_command(["x"], found, "log"))[0] == "SLURM_CONF=/etc/slurm.conf"
