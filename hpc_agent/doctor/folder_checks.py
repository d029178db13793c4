"""Checks of our folders: can files be written, locked and kept there, is there room, can no other user change them?"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from secrets import token_hex

from hpc_agent.access import weakness_of
from hpc_agent.config.load import Configuration
from hpc_agent.config.settings import HpcSettings
from hpc_agent.doctor.check import Check, CheckResult, failed, ok, skipped, warning
from hpc_agent.file_lock import try_lock
from hpc_agent.file_records import ensure_directory, private_folder, rename_new, write_atomic
from hpc_agent.setup.folders import NETWORK_FILE_SYSTEMS, file_system_of

SUBJECT = "Folders"
_GIB = 1024**3
_FULL_GIB = 0.5
_NEARLY_FULL_GIB = 5.0
_FEW_FILES = 10_000
_PROBE = b"hpc-agent doctor\n" * 4096


def checks(configuration: Configuration, *, batch_system: bool, asks_nodes: bool) -> list[Check]:
    """``asks_nodes``: jobs find out whether nodes see ``hpc.root``, so that nothing is guessed from its file system."""
    hpc = configuration.settings.hpc
    found = folders(hpc).items()
    guesses = {name: batch_system and not (asks_nodes and name == "hpc.root") for name, _ in found}
    return [
        *(Check(SUBJECT, name, partial(folder, name, path, guesses[name])) for name, path in found),
        Check(SUBJECT, "locks", partial(_locks, hpc.root.expanduser())),
        Check(SUBJECT, "scratch", partial(scratch, hpc)),
        Check(SUBJECT, "keys", partial(_keys, configuration)),
    ]


def folders(hpc: HpcSettings) -> dict[str, Path]:
    """Setting → the folder that it names; those inside of hpc.root are a part of that."""
    root = hpc.root.expanduser()
    others = {"hpc.runs_dir": hpc.runs, "hpc.cache_dir": hpc.cache}
    return {"hpc.root": root, **{name: path for name, path in others.items() if not path.is_relative_to(root)}}


def folder(name: str, path: Path, guesses: bool) -> Iterator[CheckResult]:
    """Writable, private, with room; and whether nodes can see it, as far as this machine shows."""
    kind = ""
    try:
        ensure_directory(path)
        _try_out(path)
        kind = file_system_of(path)
        yield ok(f"{path} can be written to ({kind})")
    except OSError as error:
        yield failed(f"{path} cannot be used: {error.strerror or error}", _remedy(name, path, error))
    if guesses and kind and kind not in NETWORK_FILE_SYSTEMS:
        sentence = f"{kind} is not a network file system: nodes may not see it"
        yield warning(sentence, "hpc-agent doctor --jobs     # asks the nodes", name=f"{name} shared")
    if weakness := weakness_of(path):
        yield failed(weakness.what, weakness.remedy, name=f"{name} access")
    else:
        yield ok("no other user can change it", name=f"{name} access")
    yield from room(f"{name} space", path, "hpc-agent cache prune")


def _try_out(path: Path) -> None:
    """All that the program does with files there: new, replaced, renamed as a whole, read, removed.

    Raises:
        OSError: one of them fails.
    """
    draft = path / f".doctor-{token_hex(4)}"
    final = draft.with_name(f"{draft.name}.new")
    draft.mkdir(mode=0o700)
    try:
        write_atomic(draft / "file", _PROBE)
        rename_new(draft, final)
        if (final / "file").read_bytes() != _PROBE:
            raise OSError(errno.EIO, "a file that was written there reads otherwise")
    finally:
        for each in (draft, final):
            shutil.rmtree(each, ignore_errors=True)


def _remedy(name: str, path: Path, error: OSError) -> str:
    where = shlex.quote(str(path))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"df -h {where}; quota -s; hpc-agent cache prune     # or name another folder: {name}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"chmod u+rwx {where}     # if it is yours; else name another folder: {name}"
    return f"name another folder on the shared file system: {name}"


def room(name: str, path: Path, free_up: str) -> Iterator[CheckResult]:
    """Free space and free files of the file system that holds ``path``."""
    above = next(parent for parent in (path, *path.parents) if parent.exists())
    status = os.statvfs(above)
    free = status.f_bavail * status.f_frsize / _GIB
    remedy = f"df -h {shlex.quote(str(above))}; {free_up}"
    if free < _FULL_GIB:
        yield failed(f"{free:.1f} GiB free", remedy, name=name)
    elif free < _NEARLY_FULL_GIB:
        yield warning(f"{free:.1f} GiB free: an environment with PyTorch takes about that", remedy, name=name)
    elif status.f_files and status.f_favail < _FEW_FILES:
        yield warning(f"{free:.0f} GiB free, but room for {status.f_favail} more files only", remedy, name=name)
    else:
        yield ok(f"{free:.0f} GiB free", name=name)


def _locks(root: Path) -> Iterator[CheckResult]:
    """A daemon must see that another one serves the same root."""
    file = root / f".doctor-{token_hex(4)}.lock"
    remedy = "ask the administrators to mount it with locks (Lustre: -o flock), or name another folder: hpc.root"
    try:
        ensure_directory(file.parent)  # The check of the folder goes on at the same time.
        first = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        yield skipped(f"no file can be made in hpc.root: {error.strerror}")
        return
    second = os.open(file, os.O_RDWR)
    try:
        if try_lock(first) and not try_lock(second):
            yield ok("locks on files work in hpc.root")
        else:
            yield failed("two processes can hold the same lock in hpc.root", remedy)
    except OSError as error:
        yield warning(
            f"the file system of hpc.root has no locks ({error.strerror}): start one daemon at a time", remedy
        )
    finally:
        os.close(first)
        os.close(second)
        file.unlink(missing_ok=True)


def scratch(hpc: HpcSettings) -> Iterator[CheckResult]:
    """The folder for files that need not outlive a job, or a build here."""
    folder = private_folder(hpc.scratch)
    yield ok(f"{folder} is yours alone")
    yield from room("scratch space", folder, "name another local folder: hpc.scratch_dir")


def _keys(configuration: Configuration) -> Iterator[CheckResult]:
    """Files that hold the keys of server and git, which no other user should read."""
    settings = configuration.settings
    api = settings.api
    secrets = [api.secret_key, api.auth_token, api.login_token, settings.git.password]
    values = [secret.reveal() for secret in secrets if len(secret)]
    texts = {file: file.read_text(encoding="utf-8", errors="replace") for file in configuration.files}
    held = [file for file, text in texts.items() if any(value in text for value in values)]
    open_files = [file for file in held if stat.S_IMODE(file.stat().st_mode) & 0o077]
    for file in open_files:
        yield warning(f"{file} holds keys, and other users may read it", f"chmod 600 {shlex.quote(str(file))}")
    if held and not open_files:
        yield ok(f"only you can read {', '.join(map(str, held))}")
    if not held:
        yield ok("no file of the configuration holds any")
