"""Interactive session: its task on a queue, and what its job says of how to connect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from hpc_agent.access import user_name
from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.draft import Draft
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.task import Requirements, TaskScript
from hpc_agent.drafts.create import undo_on_failure
from hpc_agent.drafts.draft_requirements import packages_as_lines
from hpc_agent.drafts.draft_resources import check_values
from hpc_agent.errors import HpcAgentError, InputError, ServerUnreachableError
from hpc_agent.file_records import exists_uncached, read_record, write_atomic
from hpc_agent.inspection.task_follower import end_of, step_of
from hpc_agent.runs.session_folders import SessionFolders
from hpc_agent.sessions.session_script import session_script
from hpc_agent.wire.task_requests import draft_to_wire

KEY_NAMES = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
LOOK_S = 1.0
CANNOT = "the session cannot be served on "
"""How ``serve.sh`` begins to say why."""
_KEY_TYPES = ("ssh-", "ecdsa-", "sk-")


class SessionEndedError(HpcAgentError):
    """The session's task ended before its job served."""


class SessionRequest(msgspec.Struct, frozen=True):
    """``resources``: user properties of the task; ``sshd``: a path on the node, found when empty."""

    queue: str
    project: str
    name: str
    public_key: str
    resources: Mapping[str, str]
    jupyter: bool = False
    sshd: str = ""
    packages: tuple[str, ...] = ()


class ServedSession(msgspec.Struct, frozen=True):
    """``ready.json``, as ``serve.sh`` writes it."""

    host: str
    port: int
    user: str
    host_key: str
    fingerprint: str
    jupyter_port: int = 0
    token: str = ""


class StartedSession(msgspec.Struct, frozen=True):
    """``folder``: where the job leaves its record, and we what belongs to it."""

    task: TaskId
    folder: Path

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def served(self) -> ServedSession | None:
        """What the job says; None while it does not serve."""
        path = self.folder / "ready.json"
        return read_record(path, ServedSession) if exists_uncached(path) else None


def public_key(given: Path | None, home: Path) -> str:
    """The text of a public key: the one that was given, else the first of ``KEY_NAMES``.

    Raises:
        InputError: there is none, or it is not one.
    """
    paths = [given] if given else [home / ".ssh" / name for name in KEY_NAMES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        if given:
            problem = "is not a file" if given.exists() else "does not exist"
            raise InputError(f"the public key {given} {problem}")
        raise InputError(
            f"there is no public key in {home / '.ssh'} ({', '.join(KEY_NAMES)}): make one with "
            "`ssh-keygen -t ed25519`, or name one with --public-key"
        )
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if len(lines) != 1 or not lines[0].startswith(_KEY_TYPES):
        raise InputError(f"{path} is not a public key: expected one line such as ssh-ed25519 AAAA… (a file *.pub)")
    return lines[0]


def start(client: Client, folders: SessionFolders, request: SessionRequest) -> StartedSession:
    """Create the session's task and put it on its queue.

    Raises:
        InputError: the queue does not exist, or a resource or a package is not possible.
        HpcAgentError: the server refused, or is away.
    """
    check_values(request.resources)
    packages = (*(("jupyterlab",) if request.jupyter else ()), *packages_as_lines(request.packages))
    queue = client.queues.resolve(request.queue)
    folder = folders.create()
    script = session_script(folder, request.public_key, sshd=request.sshd, jupyter=request.jupyter)
    draft = Draft(
        name=request.name,
        project=request.project,
        type="application",
        script=TaskScript(
            entry_point="session.sh",
            working_dir=".",
            binary="/bin/bash",
            diff=script,
            requirements=Requirements(pip=packages),
        ),
        properties=request.resources,
    )
    project = client.projects.find_or_create(request.project)
    task = client.tasks.create(draft_to_wire(draft, project))
    with undo_on_failure(client, task, client.task_page(task, project)):
        folders.set_task(folder, task)
        client.tasks.enqueue(task, queue)
    return StartedSession(task, folder)


def wait(client: Client, session: StartedSession, clock: Clock) -> Iterator[str | ServedSession]:
    """What becomes of the session, in a sentence each time that it changes, and in the end how it is served.

    Raises:
        SessionEndedError: its task ended before.
    """
    shown = ""
    while True:
        served = session.served()
        if served is not None:
            write_atomic(session.known_hosts, f"[{served.host}]:{served.port} {served.host_key}\n".encode())
            yield served
            return
        try:
            state = client.tasks.get_states([session.task]).get(session.task)
        except ServerUnreachableError as error:
            text = f"the server does not answer, trying again: {error}"
        else:
            end = end_of(state)
            if end is not None:
                raise SessionEndedError(
                    f"the session {session.task} ended before it was served: {_why(client, session) or end.text}; "
                    f"`hpc-agent logs {session.task}` has its console"
                )
            text = step_of(state) if state else ""
        if text and text != shown:
            shown = text
            yield text
        clock.sleep(LOOK_S)


def _why(client: Client, session: StartedSession) -> str:
    """What its script said of it; empty if it said nothing."""
    try:
        events = client.events.console_after(session.task, 0)
    except HpcAgentError:
        return ""
    lines = "".join(str(event.get("msg") or "") for event in events).splitlines()
    return next((line for line in reversed(lines) if line.startswith(CANNOT)), "")


def default_name() -> str:
    return f"session of {user_name()}"
