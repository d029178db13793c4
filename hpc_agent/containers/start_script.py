"""The script that a container starts with. Pure.

Variables come by this file, which only its owner may read, and not by a command line, which all users see; the image's
own PATH and variables are there already; the task's set-up script runs in the same shell as the process after it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

import msgspec

from hpc_agent.containers.rank_variables import EXPORT_ARGUMENTS

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_FORWARD = """\
# The first process of a container gets no signal that it does not ask for: ours passes it on, and collects orphans.
# With job control, which sh lacks without a terminal, the process leads a group and SIGINT is not ignored in it.
group=
[ -n "${BASH_VERSION:-}" ] && set -m && group=-
"$@" </dev/null &
child=$!
trap 'signalled=1; kill -TERM "$group$child" 2>/dev/null' TERM INT
while :; do
    signalled=
    wait "$child"
    code=$?
    # A wait that a signal interrupted does not mean that the process has ended.
    [ -n "$signalled" ] || exit "$code"
done
"""


_WATCH = """\
# The process that started us holds the other end of this: it closes when that process dies, in whatever way. It may
# have died already; opening a pipe to read waits for one that writes, and ours is the first of these for a moment.
(
    if (exec 3<>{alive}); then exec 3<>{alive} 4<{alive} 3>&-; else exec 4<{alive}; fi
    read -r _ <&4; kill -TERM $$; sleep 5; [ $$ -ne 1 ] || kill -KILL -1
) 2>/dev/null &
"""


class StartScript(msgspec.Struct, frozen=True):
    """``path_first``: folder put before the image's own PATH. ``python``: must start, else the image does not fit.
    ``first``: the script is the container's process 1.
    ``home``: for images that say nothing about one. ``alive``: a pipe that the starting process holds open, for
    containers that would outlive it."""

    cwd: str
    command: Sequence[str]
    exports: Mapping[str, str] = msgspec.field(default_factory=dict)
    path_first: str = ""
    setup: Sequence[str] = ()
    python: str = ""
    first: bool = False
    home: str = "/tmp"  # noqa: S108
    alive: str = ""


def is_exportable(name: str) -> bool:
    """Whether a shell can export a variable of this name; others stay outside of the container."""
    return _NAME.fullmatch(name) is not None


def script(launch: StartScript, image: str) -> str:
    """For bash where the image has it, else sh. ``image`` is for messages."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in launch.exports.items() if is_exportable(name)]
    lines.append(EXPORT_ARGUMENTS)
    lines.append(f'export HOME="${{HOME:-{launch.home}}}"')
    if launch.first:
        lines.append("trap 'exit 143' TERM INT")
    if launch.alive:
        lines.append(_WATCH.format(alive=shlex.quote(launch.alive)))
    # Outside of the folder of the task: what its set-up leaves behind is not part of the code.
    lines += ["cd /", *launch.setup]
    if launch.path_first:
        lines.append(f'export PATH={shlex.quote(launch.path_first)}:"$PATH"')
    lines.append(f"cd {shlex.quote(launch.cwd)} || exit 126")
    if launch.python:
        message = shlex.quote(
            f"hpc-agent: {launch.python} does not start in the image {image}, which seems to have another C library; "
            "let the task use the image's own Python (hpc.container.python = image)"
        )
        lines.append(f"{shlex.quote(launch.python)} -I -S -c '' || {{ echo {message}; exit 126; }}")
    if not launch.first:
        return "\n".join([*lines, f"exec {shlex.join(launch.command)} </dev/null", ""])
    return "\n".join([*lines, f"set -- {shlex.join(launch.command)}", _FORWARD])


def command(path: str) -> list[str]:
    """What a container is started with, ``path`` being the script in it. Words after it are ``NAME=value``: variables
    of the script's process, which it exports once more after its own."""
    shell = 'command -v bash >/dev/null && exec bash "$0" "$@"; exec sh "$0" "$@"'
    return ["/bin/sh", "-c", f'for pair in "$@"; do export "$pair"; done; {shell}', path]
