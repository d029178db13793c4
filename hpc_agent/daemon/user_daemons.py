"""Daemons of other Linux users (``hpc.user_map``): each serves the tasks of one user, as that user.

Such a daemon is started through the site's command (``runuser``, ``sudo -u``). All that it has — run directories,
cache, console spools, Slurm jobs — belongs to its user, so nothing has to be shared between users. It gets its
configuration on stdin, and ends when that closes: a program behind sudo cannot be signalled by the one that called it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.domain.user_map import UserShare
from hpc_agent.errors import HpcAgentError, ProcessError
from hpc_agent.file_records import ensure_directory, read_record, write_record
from hpc_agent.logs import EventLog
from hpc_agent.process.background import Helper
from hpc_agent.process.programs import run
from hpc_agent.retry import next_pause

log = EventLog("users")

IDLE_S = 600.0
"""After so long without a task the daemon of a user ends; it is started again when one comes."""
_FIRST_PAUSE_S = 2.0
_SETTLED_S = 15.0
"""One that has lived so long has read its configuration and reached the server."""
_STOP_S = 20.0
_ONCE_S = 3600.0
_LAST_WORDS = 2000
_PIPE_BYTES = 1 << 20


def default_command(user: str) -> list[str]:
    """What runs a program as ``user`` where ``hpc.user_command`` is empty: without a password prompt, or not at all."""
    return ["runuser", "-u", user, "--"] if os.getuid() == 0 else ["sudo", "-n", "-H", "-u", user, "--"]


def command(configured: Sequence[str], user: str) -> list[str]:
    """The configured command with the user's name in it."""
    return [word.replace("{user}", user) for word in configured] or default_command(user)


class _Shares(msgspec.Struct, frozen=True):
    """``users.json``: the shares that a daemon was started for, so that the next one starts them again."""

    shares: tuple[UserShare, ...] = ()


class _Daemon(msgspec.Struct):
    """Of one share. ``pipe``: the writing end of its stdin."""

    child: Helper | None = None
    pipe: int = -1
    not_before: float = 0.0
    pause: float = _FIRST_PAUSE_S
    started_at: float = 0.0
    trouble: str = ""
    log: Path = msgspec.field(default_factory=Path)


class UserDaemons:
    """``document`` makes what the daemon of a share gets; ``argv`` its command line, for a Linux user."""

    def __init__(
        self,
        folder: Path,
        document: Callable[[UserShare], Mapping[str, Any]],
        argv: Callable[[str], Sequence[str]],
        environ: Mapping[str, str],
        clock: Clock,
        *,
        starts: bool = True,
        by_clearml_user: bool = False,
    ) -> None:
        """``starts``: at once; else in ``once``. ``by_clearml_user``: each ClearML user's tasks are a share."""
        self._starts = starts
        self._by_clearml_user = by_clearml_user
        self._folder = folder
        self._document = document
        self._argv = argv
        self._environ = environ
        self._clock = clock
        self._daemons: dict[UserShare, _Daemon] = {}

    def resume(self) -> None:
        """Start those again that the last daemon had: their users' jobs may run."""
        for share in self.recorded():
            self.require(share)

    def require(self, share: UserShare) -> str:
        daemon = self._daemons.get(share)
        if daemon is None:
            daemon = self._daemons[share] = _Daemon(log=self._folder / f"user.{share.name}.err")
            self._record()
        if self._starts and daemon.child is None and self._clock.monotonic() >= daemon.not_before:
            self._start(share, daemon)
        return daemon.trouble

    def look(self) -> None:
        """Notice which have ended: one that had nothing left to do is forgotten, another one is started again."""
        for share, daemon in list(self._daemons.items()):
            code = daemon.child.wait(0) if daemon.child else None
            if code is None:
                if daemon.child is None:
                    self.require(share)
                elif self._clock.monotonic() - daemon.started_at > _SETTLED_S:
                    daemon.trouble, daemon.pause = "", _FIRST_PAUSE_S
                continue
            _close(daemon)
            if code == 0:
                log.info("user.daemon_idle", user=share.name)
                del self._daemons[share]
                self._record()
            else:
                self._failed(share, daemon, _last_words(daemon.log) or f"exit code {code}")

    def close(self) -> None:
        """End all; their jobs go on."""
        for daemon in self._daemons.values():
            _close_pipe(daemon)
        end = self._clock.monotonic() + _STOP_S
        for share, daemon in self._daemons.items():
            if daemon.child and daemon.child.wait(max(end - self._clock.monotonic(), 0)) is None:
                log.warning("user.daemon_stays", user=share.name, pid=daemon.child.pid)

    def once(self) -> bool:
        """One pass of each that is required, to its end; False if one did not get an answer."""
        done = True
        for share in {*self.recorded(), *self._daemons}:
            argv = self._argv(share.linux_user)
            try:
                text = self._text(share, once=True)
                answer = run(argv, timeout=_ONCE_S, env=self._environ, cwd=Path("/"), input=text)
            except HpcAgentError as error:
                log.error("user.daemon_failed", user=share.name, error=error)
                done = False
                continue
            if not answer.ok:
                log.error("user.daemon_failed", user=share.name, error=answer.last_words)
                done = False
        return done

    def _text(self, share: UserShare, *, once: bool = False) -> str:
        return json.dumps({**self._document(share), "once": once}) + "\n"

    def _start(self, share: UserShare, daemon: _Daemon) -> None:
        try:
            text = self._text(share)
        except HpcAgentError as error:
            self._failed(share, daemon, str(error))
            return
        reads, writes = os.pipe()
        # The document fits in: a command that does not read it holds nothing up.
        with suppress(OSError):
            fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            with daemon.log.open("wb") as errors:
                argv = self._argv(share.linux_user)
                daemon.child = Helper(argv, stdin=reads, stderr=errors.fileno(), env=self._environ, cwd=Path("/"))
        except (ProcessError, OSError) as error:
            os.close(writes)
            self._failed(share, daemon, str(error))
            return
        finally:
            os.close(reads)
        daemon.pipe, daemon.started_at = writes, self._clock.monotonic()
        log.info("user.daemon_started", user=share.name, pid=daemon.child.pid)
        try:
            _write_all(writes, text.encode())
        except BrokenPipeError:
            return  # it has ended: ``look`` finds out why

    def _failed(self, share: UserShare, daemon: _Daemon, reason: str) -> None:
        daemon.not_before = self._clock.monotonic() + daemon.pause
        daemon.pause = next_pause(daemon.pause)
        shown = shlex.join(self._argv(share.linux_user))
        last = reason.splitlines()[-1]
        daemon.trouble = f"the daemon for the Linux user {share.linux_user} does not run: {last} (command: {shown})"
        log.error("user.daemon_failed", user=share.name, error=reason)

    def recorded(self) -> tuple[UserShare, ...]:
        """The shares that have a daemon, or had one when the last main daemon ended.

        Those of a main daemon that divided the tasks otherwise are left out: of a Linux user as a whole they would
        serve, with the main daemon's credentials, what is now each ClearML user's own.
        """
        found = read_record(self._folder / "users.json", _Shares)
        shares = found.shares if found else ()
        return tuple(share for share in shares if (share.only is not None) == self._by_clearml_user)

    def _record(self) -> None:
        write_record(ensure_directory(self._folder, mode=0o700) / "users.json", _Shares(tuple(self._daemons)))


def _last_words(file: Path) -> str:
    try:
        return file.read_bytes()[-_LAST_WORDS:].decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _close_pipe(daemon: _Daemon) -> None:
    if daemon.pipe >= 0:
        os.close(daemon.pipe)
        daemon.pipe = -1


def _close(daemon: _Daemon) -> None:
    _close_pipe(daemon)
    daemon.child = None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
