"""Script of an interactive session's task: what its shells see of the job. OpenSSH makes keys for named users only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpc_agent.sessions.session_script import session_script


@pytest.fixture
def sshd(tmp_path: Path) -> Path:
    """A server that cannot start; what it was to be started with is in ``sshd_config``."""
    program = tmp_path / "sshd"
    program.write_text(f'#!/bin/bash\ncp "$4" {tmp_path}/sshd_config\necho "no room" >&2\nexit 1\n')
    program.chmod(0o700)
    return program


def test_shells_get_the_jobs_variables_as_they_are(tmp_path: Path, sshd: Path) -> None:
    values = {"TOKEN": "c2VjcmV0=", "PADDED": "YQ==", "SPACES": "a  b ", "LINES": "a\nOTHER=1", "SLURM_JOB_ID": "7"}
    text = session_script(tmp_path, "ssh-ed25519 AAAA anna@here", sshd=str(sshd))
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), **values}
    done = subprocess.run(["bash", "-c", text], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert "the session cannot be served on" in done.stderr and "sshd: no room" in done.stderr
    [line] = [line for line in (tmp_path / "sshd_config").read_text().splitlines() if line.startswith("SetEnv")]
    for name in ("TOKEN", "PADDED", "SPACES", "SLURM_JOB_ID"):
        assert f'"{name}={values[name]}"' in line
    # A line of the configuration cannot hold it.
    assert "LINES" not in line and "OTHER" not in line
