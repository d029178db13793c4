"""Access to our folders: what we run and believe from them must not be another user's doing.

A folder that its group may write to is open to others unless the group is the user's own. A folder is as safe as those
above it: who may write to one of them can put something else in its place, except where a sticky bit keeps names.
"""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.errors import ConfigError

_LINKS = 40
"""As many as Linux follows."""


@dataclass(frozen=True)
class Weakness:
    """Weakness of a path's access, and the command that repairs it, or what to do instead."""

    what: str
    remedy: str


def check_private(path: Path, setting: str) -> None:
    """
    Raises:
        ConfigError: another user can change what is in the folder ``path``, or put another one in its place.
            ``setting`` says where the path comes from.
    """
    found = weakness_of(path)
    if found is not None:
        raise ConfigError(
            f"{setting} is {path}, and {found.what}: a user who can write there can run code as "
            f"{_name(os.getuid())} and read the keys of the server; {found.remedy}"
        )


def weakness_of(path: Path) -> Weakness | None:
    """Of a folder that shall be ours alone to write to, or does not exist yet; None if there is none."""
    path = path.absolute()
    for _ in range(_LINKS):
        try:
            link, found = _first_link(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return Weakness(f"its access cannot be read ({error.strerror})", "name another folder")
        if link is None or found is not None:
            return found
        path = Path(os.path.normpath(link.parent / link.readlink())) / path.relative_to(link)
    return Weakness("it leads through too many links", "name the folder itself")


def _first_link(path: Path) -> tuple[Path | None, Weakness | None]:
    """Look at ``path`` from its root on, up to the first link; a weakness that was met there."""
    for part in (*reversed(path.parents), path):
        status = part.lstat()
        if stat.S_ISLNK(status.st_mode):
            return part, _of_link(part, status)
        found = _of_folder(part, status) if part == path else _of_parent(part, status)
        if found is not None:
            return None, found
    return None, None


def _of_link(link: Path, status: os.stat_result) -> Weakness | None:
    if status.st_uid in (0, os.getuid()):
        return None
    return Weakness(
        f"{link} is a link of {_name(status.st_uid)}, who can let it lead anywhere",
        "name the folder itself, or remove the link",
    )


def _of_folder(folder: Path, status: os.stat_result) -> Weakness | None:
    if not stat.S_ISDIR(status.st_mode):
        return None  # its user gets the error
    if status.st_uid != os.getuid():
        return Weakness(
            f"{folder} belongs to {_name(status.st_uid)}",
            "name a folder of yours, one that is not there yet, or one below your home",
        )
    if who := _others_who_write(status):
        return Weakness(f"{who} can write to {folder}", f"`chmod go-w {shlex.quote(str(folder))}` ends that")
    return None


def _of_parent(folder: Path, status: os.stat_result) -> Weakness | None:
    """Of a folder above: who may rename what is in it?"""
    own = status.st_uid == os.getuid()
    if status.st_mode & stat.S_ISVTX:
        if own or status.st_uid == 0:
            return None
    elif who := _others_who_write(status):
        remedy = f"`chmod go-w {shlex.quote(str(folder))}` or `chmod +t {shlex.quote(str(folder))}` ends that"
        if own:
            return Weakness(f"{who} can put another folder in its place, in {folder}", remedy)
        if status.st_mode & stat.S_IWOTH:
            return Weakness(
                f"{who} can put another folder in its place, in {folder}",
                f"name another folder, or let {_name(status.st_uid)} say `chmod +t {shlex.quote(str(folder))}`",
            )
    # A project's folder that belongs to its head and whose group may write: the site's own decision.
    return None


def _others_who_write(status: os.stat_result) -> str:
    if status.st_mode & stat.S_IWOTH:
        return "all users"
    if status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid):
        return f"the group {_group_name(status.st_gid)}"
    return ""


def _is_own_group(gid: int) -> bool:
    """Whether the group has no other member, as where each user has a group of that name."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def user_name() -> str:
    """Name of the user that runs this process; the number where it has no name, as in some containers."""
    try:
        import pwd
    except ImportError:  # hpc-task is typed on laptops of all kinds
        return os.environ.get("USERNAME", "unknown")
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _name(uid: int) -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user number {uid}"


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
