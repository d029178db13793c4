"""Files of other users: who can change, replace or read what we make, and what is used that another user has made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache, partial
from importlib import import_module
from itertools import count
from pathlib import Path
from tempfile import NamedTemporaryFile

from attacks.case import Case
from attacks.users import COLLEAGUE, LAB, OWNER, STRANGER, User, as_user, ground
from hpc_agent.cli.shared_options import check_folders
from hpc_agent.clock import SYSTEM
from hpc_agent.config.job_config import share_job_config
from hpc_agent.config.load import Configuration, load
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.registration import DaemonRecord, DaemonRegistry, RegistrationError
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, TaskId, WorkerId
from hpc_agent.errors import HpcAgentError
from hpc_agent.file_records import ensure_directory, user_scratch_dir
from hpc_agent.lease import Lease
from hpc_agent.process_id import process_id
from hpc_agent.runs.attempt_records import ClaimRecord, SubmissionRecord
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.schedulers.local.jobs import JobsFolder, Spec
from hpc_agent.telemetry.console_writer import Storage
from hpc_agent.telemetry.spool import Spool
from hpc_agent.tracking.tracked_records import TrackedRoot, TrackingPlan

DOOR = "files of other users"
NEEDS_ROOT = True
"""Only root can be several users."""

import_module("hpc_agent.access")  # now: as another user, Python's own files may be out of reach

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
ATTEMPT = Attempt(TaskId("a" * 32), AttemptId("0000000a"))
_grounds: list[Path] = []
_numbers = count()


@contextmanager
def world() -> Iterator[None]:
    """The ground that all users share."""
    with ground() as folder:
        _grounds.append(folder)
        try:
            yield
        finally:
            _grounds.remove(folder)


def _place(mode: int = 0o755, owner: int = OWNER.uid, group: int = LAB) -> Path:
    """An empty folder on the shared ground."""
    folder = _grounds[-1] / str(next(_numbers))
    folder.mkdir()
    os.chown(folder, owner, group)
    folder.chmod(mode)
    return folder


# ---------------------------------------------------------------- what we make, whatever the umask


def _run_directory(root: Path) -> None:
    run = RunsFolder(root / "hpc" / "runs").of(ATTEMPT).create()
    run.write_submission(SubmissionRecord(state="intended", at=NOW, queue="b" * 32))
    run.first_claim(ClaimRecord(state="intent", at=NOW, owner="job:1"))
    run.count_requeue(0)


def _console(root: Path) -> None:
    run = RunsFolder(root / "hpc" / "runs").of(ATTEMPT).create()
    storage = Storage(str(run.console().text))
    storage.put(b"secret\n")
    assert storage.close()


def _notes(root: Path) -> None:
    notes = RunsFolder(root / "hpc" / "runs").of(ATTEMPT).create().notes
    spool = Spool(notes.text, notes.mark)
    spool.write(b"a line\n")
    spool.remember(spool.mark())
    spool.close()


def _daemon(root: Path) -> None:
    daemons = DaemonRegistry(root / "hpc" / "daemons", "host", SYSTEM)
    daemons.register(lambda _slot: WorkerId("host:0"), numbered=False, flags={})


@cache
def _configuration() -> Configuration:
    with NamedTemporaryFile("w", suffix=".conf", encoding="utf-8") as conf:
        conf.write('api { api_server: "http://localhost:8008", credentials { access_key: a, secret_key: s } }')
        conf.flush()
        return load(Path(conf.name), {})


def _job_config(root: Path) -> None:
    share_job_config(_configuration(), ensure_directory(root / "hpc" / "daemons", mode=0o700))


def _open_attempts(root: Path) -> None:
    RunsFolder(root / "hpc" / "runs").open_attempts.mark_complete()


def _tracked_job(root: Path) -> None:
    TrackedRoot(root / "hpc" / "sbatch").of(ATTEMPT.task).create(TrackingPlan(task=ATTEMPT.task, since=NOW))


def _local_job(root: Path) -> None:
    spec = Spec("name", str(root), str(root / "out"), 0, None, NOW)
    JobsFolder(root / "hpc" / "local" / "host").add(spec, b"#!/bin/sh\n")


def _lease(root: Path) -> None:
    Lease(ensure_directory(root / "hpc" / "runs", mode=0o700) / ".turns" / "q", SYSTEM).acquire()


def _scratch(root: Path) -> None:
    folder = user_scratch_dir(root / "scratch")
    assert folder is not None
    ensure_directory(folder / "work" / "job.0", mode=0o700)


def _deep_folder(root: Path) -> None:
    ensure_directory(root / "hpc" / "one" / "two" / "three")


MAKERS: dict[str, Callable[[Path], None]] = {
    "a run directory": _run_directory,
    "a console": _console,
    "notes of a daemon": _notes,
    "a daemon's record": _daemon,
    "the configuration of jobs": _job_config,
    "the list of open attempts": _open_attempts,
    "a tracked job": _tracked_job,
    "a local job": _local_job,
    "a lease": _lease,
    "scratch": _scratch,
    "a folder and its parents": _deep_folder,
}
UMASKS = (0o000, 0o002, 0o007, 0o022, 0o077)


def _make(maker: Callable[[Path], None], root: Path) -> str:
    maker(root)
    return ""


def _made(maker: Callable[[Path], None], umask: int, user: User, _folder: Path) -> str:
    """Make it as the owner; then another user tries to write to, replace and read each part of it."""
    root = _place(0o755)
    _configuration()  # now, for the same reason
    as_user(OWNER, partial(_make, maker, root), umask=umask, group=LAB)
    return as_user(user, partial(_meddle, root))


def _meddle(root: Path) -> str:
    for path in sorted(root.rglob("*")):
        if not os.path.lexists(path):
            continue
        for name, attempt in _ATTEMPTS.items():
            try:
                attempt(path)
            except OSError:
                continue
            return f"{name}: {path.relative_to(root)}"
    return ""


def _replace(path: Path) -> None:
    path.rename(path.with_name("taken"))


def _fill(path: Path) -> None:
    if not path.is_dir():
        raise NotADirectoryError
    (path / "planted").write_text("mine", encoding="utf-8")


def _overwrite(path: Path) -> None:
    with path.open("r+b"):
        pass


def _spy(path: Path) -> None:
    if path.name.endswith((".log", ".conf", ".json", ".sbatch", "script")):
        path.read_bytes()
    else:
        raise PermissionError


_ATTEMPTS = {"renamed": _replace, "filled": _fill, "written to": _overwrite, "read": _spy}


# ---------------------------------------------------------------- what another user has made first

PARTS = ("", "runs", "daemons", "sbatch", "local")
MODES = (0o777, 0o775, 0o755, 0o1777, 0o2775)


def _settings(root: Path) -> AllSettings:
    return AllSettings(hpc=HpcSettings(root=root))


def _start(root: Path) -> str:
    """What every start of a daemon does."""
    try:
        check_folders(_settings(root))
    except HpcAgentError as error:
        has_remedy = "chmod" in str(error) or "name " in str(error)
        return "" if str(root) in str(error) and has_remedy else f"refused without a remedy: {error}"
    return f"taken: {root}"


def _foreign(part: str, mode: int, _folder: Path) -> str:
    """A folder that the colleague made."""
    root = _place(0o755) / "hpc"
    _own(root, 0o755, OWNER.uid)
    if part:
        _own(root / part, mode, COLLEAGUE.uid)
    else:
        os.chown(root, COLLEAGUE.uid, LAB)
        root.chmod(mode)
    return as_user(OWNER, partial(_start, root))


def _open(part: str, mode: int, _folder: Path) -> str:
    """A folder of ours that an earlier version left open to the group or to all users."""
    root = _place(0o755) / "hpc"
    _own(root, 0o755, OWNER.uid)
    target = root / part if part else root
    if part:
        _own(target, mode, OWNER.uid)
    target.chmod(mode)
    return as_user(OWNER, partial(_start, root))


def _above(mode: int, owner: int, _folder: Path) -> str:
    """The folder above, where names can be exchanged."""
    place = _place(mode, owner)
    _own(place / "hpc", 0o700, OWNER.uid)
    return as_user(OWNER, partial(_start, place / "hpc"))


def _own(folder: Path, mode: int, uid: int) -> None:
    folder.mkdir()
    os.chown(folder, uid, LAB)
    folder.chmod(mode)


def _link(part: str, target: str, _folder: Path) -> str:
    """A link of the colleague's where we look for our folder."""
    place = _place(0o1777, 0)
    targets = {"theirs": place / "theirs", "ours": place / "ours", "nothing": place / "nothing"}
    _own(targets["theirs"], 0o777, COLLEAGUE.uid)
    _own(targets["ours"], 0o700, OWNER.uid)
    if part == "parent":
        _own(targets["theirs"] / "hpc", 0o777, OWNER.uid)
        _own(targets["ours"] / "hpc", 0o700, OWNER.uid)
        link, root = place / "above", place / "above" / "hpc"
    elif part:
        _own(place / "hpc", 0o755, OWNER.uid)
        link, root = place / "hpc" / part, place / "hpc"
    else:
        link = root = place / "hpc"
    link.symlink_to(targets[target])
    os.chown(link, COLLEAGUE.uid, LAB, follow_symlinks=False)
    return as_user(OWNER, partial(_start, root))


# ---------------------------------------------------------------- scratch, which all users share


def _taken_name(kind: str, _folder: Path) -> str:
    """``/tmp/hpc-agent-<uid>`` is there already."""
    scratch = _place(0o1777, 0)
    name = scratch / f"hpc-agent-{OWNER.uid}"
    theirs = scratch / "theirs"
    _own(theirs, 0o777, COLLEAGUE.uid)
    made: dict[str, Callable[[], object]] = {
        "a folder": lambda: _own(name, 0o755, COLLEAGUE.uid),
        "an open folder": lambda: _own(name, 0o777, COLLEAGUE.uid),
        "a folder of the group": lambda: _own(name, 0o2775, COLLEAGUE.uid),
        "our own folder, open to the group": lambda: _own(name, 0o775, OWNER.uid),
        "our own folder, open to all": lambda: _own(name, 0o1777, OWNER.uid),
        "a link to theirs": lambda: name.symlink_to(theirs),
        "a link into the system": lambda: name.symlink_to("/tmp"),
        "a link to nothing": lambda: name.symlink_to(scratch / "nothing"),
        "a file": lambda: name.touch(),
        "a pipe": lambda: os.mkfifo(name),
    }
    made[kind]()
    if not kind.startswith("our") and "folder" not in kind:
        os.chown(name, COLLEAGUE.uid, LAB, follow_symlinks=False)
    return as_user(OWNER, lambda: str(user_scratch_dir(scratch) or ""))


TAKEN_NAMES = (
    "a folder",
    "an open folder",
    "a folder of the group",
    "our own folder, open to the group",
    "our own folder, open to all",
    "a link to theirs",
    "a link into the system",
    "a link to nothing",
    "a file",
    "a pipe",
)


def _scratch_without_sticky(mode: int, _folder: Path) -> str:
    """Any user may rename what is in it, our folder too, at any time."""
    scratch = _place(mode, 0)
    if not as_user(OWNER, lambda: str(user_scratch_dir(scratch) or "")):
        return ""
    return as_user(STRANGER, partial(_meddle, scratch))


# ---------------------------------------------------------------- processes


def _signalled(pid: int, _folder: Path) -> str:
    """A record names a process of another user: it may not get a signal, and there is an error message."""
    place = _place(0o700)

    def stop() -> str:
        process = process_id(pid)
        assert process is not None
        daemons = DaemonRegistry(place / "daemons", "host", SYSTEM)
        try:
            daemons.stop(DaemonRecord(WorkerId("host:0"), "host", process, NOW))
        except RegistrationError as error:
            return "" if "another user's" in str(error) else str(error)
        return "signalled"

    return as_user(OWNER, stop)


CASES = (
    *(
        Case(f"made with umask {umask:03o}: {name}, met by {who}", partial(_made, maker, umask, user))
        for name, maker in MAKERS.items()
        for umask in UMASKS
        for who, user in (("a colleague", COLLEAGUE), ("a stranger", STRANGER))
    ),
    *(
        Case(f"made first by a colleague, mode {mode:o}: {part or 'hpc.root'}", partial(_foreign, part, mode))
        for part in PARTS
        for mode in MODES
    ),
    *(
        Case(f"left open, mode {mode:o}: {part or 'hpc.root'}", partial(_open, part, mode))
        for part in PARTS
        for mode in (0o777, 0o775, 0o757, 0o720)
    ),
    *(
        Case(f"the folder above hpc.root has mode {mode:o} and belongs to {who}", partial(_above, mode, owner))
        for mode in (0o777, 0o757, 0o773)
        for who, owner in (("root", 0), ("us", OWNER.uid), ("a colleague", COLLEAGUE.uid))
    ),
    Case("the folder above hpc.root is ours and the group's", partial(_above, 0o775, OWNER.uid)),
    *(
        Case(f"a colleague's link to {target}: {part or 'hpc.root'}", partial(_link, part, target))
        for part in ("", "parent", "runs", "daemons", "sbatch")
        for target in ("theirs", "ours")
    ),
    *(Case(f"scratch has {kind} of our name", partial(_taken_name, kind)) for kind in TAKEN_NAMES),
    *(Case(f"scratch has mode {mode:o}", partial(_scratch_without_sticky, mode)) for mode in (0o777, 0o773, 0o1777)),
    Case("a record names a process of root's", partial(_signalled, 1)),
)
