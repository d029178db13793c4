"""OpenSSH's server for tests, from Debian's archive, kept in the cache of scripts/debian_packages.py."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from capabilities import missing
from debian_packages import PackagesError, cache_dir, locked, unpack, use_own_libraries


def openssh_server() -> Path:
    """The program; ends the running test where it cannot be had."""
    folder = cache_dir() / "openssh-server"
    program = folder / "files" / "usr" / "sbin" / "sshd"
    with locked(folder):
        if not (folder / "ready").exists():
            try:
                unpack("bookworm", ("openssh-server", "patchelf"), folder)
                use_own_libraries(folder / "files", [program])
            except (PackagesError, OSError) as error:
                missing("sshd", f"OpenSSH's server could not be fetched: {error}")
            (folder / "ready").write_text("openssh-server\n", encoding="utf-8")
    if os.geteuid() == 0:
        _prepare_for_root()
    return program


def _prepare_for_root() -> None:
    """The folder and the user of sshd's unprivileged half, which only one that root runs has; the package's own set-up
    and its service make them so."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    try:
        pwd.getpwnam("sshd")
    except KeyError:
        made = subprocess.run(
            ["useradd", "--system", "--no-create-home", "--home-dir=/run/sshd", "--shell=/usr/sbin/nologin", "sshd"],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            missing("sshd", f"its user could not be made: {made.stderr.strip()}")
