"""A real sudo for tests, with rules of their own, on a machine that has none: Debian's, kept in the cache of
scripts/debian_packages.py, with its files laid over /etc in a mount namespace. It wants root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capabilities import missing
from debian_packages import PackagesError, cache_dir, locked, unpack

_INSIDE = """\
mount -t overlay overlay -o lowerdir="$1":/etc /etc
mount -t overlay overlay -o lowerdir="$2":/usr/libexec /usr/libexec
shift 2
exec "$@"
"""


@dataclass(frozen=True)
class Sudo:
    """``under``: runs its arguments where ``sudo`` knows the rules, if ``bin_dir`` is on PATH."""

    under: Sequence[str]
    bin_dir: Path


def sudo(folder: Path, rules: str) -> Sudo:
    """``rules``: the text of /etc/sudoers; ends the running test where sudo cannot be had."""
    files = _files()
    etc = folder / "etc"
    (etc / "pam.d").mkdir(parents=True)
    for name in ("sudo.conf", "pam.d/sudo"):
        shutil.copy(files / "etc" / name, etc / name)
    (etc / "sudoers").write_text(rules)
    (etc / "sudoers").chmod(0o440)
    for path in (folder, etc, etc / "pam.d"):
        path.chmod(0o755)
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _INSIDE, "sh"]
    found = Sudo([*words, str(etc), str(files / "usr" / "libexec")], files / "usr" / "bin")
    answer = subprocess.run(
        [*found.under, str(found.bin_dir / "sudo"), "-V"], text=True, capture_output=True, check=False
    )
    if answer.returncode:
        missing("root", f"sudo does not work here: {answer.stderr.strip()}")
    return found


def _files() -> Path:
    folder = cache_dir() / "sudo"
    with locked(folder):
        if not (folder / "ready").exists():
            try:
                unpack("bookworm", ("sudo",), folder)
            except (PackagesError, OSError) as error:
                missing("root", f"sudo could not be fetched: {error}")
            (folder / "ready").write_text("sudo\n", encoding="utf-8")
    if os.stat(folder / "files" / "usr" / "bin" / "sudo").st_uid != 0:
        missing("root", "sudo was not unpacked by root, and so cannot become another user")
    return folder / "files"
