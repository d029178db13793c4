"""OpenSSH's server for tests, from Debian's archive, kept in the cache of scripts/debian_packages.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from capabilities import missing
from debian_packages import PackagesError, cache_dir, locked, unpack, use_own_libraries

_FOR_ROOT = """\
#!/bin/sh
# The user and the folder of sshd's unprivileged half, in a mount namespace that ends with it. All of /etc is copied: a
# mount on /etc/passwd alone is gone once useradd, anywhere, replaces that file.
exec unshare --mount sh -c '
mount -t tmpfs none /run && mkdir -m 755 /run/sshd && cp -a /etc /run/etc || exit
grep -q "^sshd:" /run/etc/passwd || echo "sshd:x:65534:65534::/run/sshd:/usr/sbin/nologin" >>/run/etc/passwd || exit
mount --bind /run/etc /etc && exec "{sshd}" "$@"
' sshd "$@"
"""


def openssh_server(folder: Path) -> Path:
    """The program; ends the running test where it cannot be had.

    ``folder``: where root's goes, which wants a user and a folder that the package's set-up and its service would make;
    they are not made here.
    """
    program = _fetched()
    if os.geteuid() != 0:
        return program
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/run"], capture_output=True)
    if tried.returncode:
        missing("namespaces", f"no mount namespace for root's sshd: {tried.stderr.decode().strip()}")
    wrapper = folder / "sshd"
    wrapper.write_text(_FOR_ROOT.format(sshd=program), encoding="utf-8")
    wrapper.chmod(0o755)
    return wrapper


def _fetched() -> Path:
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
    return program
