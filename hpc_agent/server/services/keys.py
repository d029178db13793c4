"""Key pairs of users, and of tasks."""

from __future__ import annotations

from hpc_agent.domain.status import TaskStatus
from hpc_agent.redact import Secret
from hpc_agent.server.action import Access, Answer, Call, Moment, RequestBody, Service, iso
from hpc_agent.server.api_fault import ApiFault, invalid, refuse_control_characters
from hpc_agent.server.authentication import LINGER
from hpc_agent.server.owner_credentials import new_access_key, new_secret_key
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import key_store
from hpc_agent.server.store.documents import users
from hpc_agent.server.store.key_store import Credential, hash_of
from hpc_agent.wire.error_kinds import INVALID_TASK_STATUS

service = Service("auth")

SERVERS_OWN = "of this server's conf file"
_FINAL = [status.value for status in TaskStatus if status.is_final]


class UserRequest(RequestBody, frozen=True):
    user: str | None = None
    """Whose; the caller's own where none is named."""


class CreateCredentialsRequest(UserRequest, frozen=True):
    label: str = ""


class RevokeRequest(UserRequest, frozen=True):
    access_key: str | None = None
    """All of the user's, those of running jobs too, where none is named."""


class TaskRequest(RequestBody, frozen=True):
    task: str


@service.action(CreateCredentialsRequest, Access.WRITE)
def create_credentials(request: CreateCredentialsRequest, call: Call) -> Answer:
    """The secret is in this answer only: the server keeps its hash."""
    refuse_control_characters(request.label, "label")
    if request.label == SERVERS_OWN:
        raise invalid("this label is the server's own: its key cannot be revoked", field="label")
    return _made(call, _user(request, call), label=request.label[:200])


@service.action(TaskRequest, Access.WRITE)
def create_task_credentials(request: TaskRequest, call: Call) -> Answer:
    """A key pair with which a job runs this task; it speaks for the task's owner and ends with the task."""
    task = existing_task(call, request.task, ("status", "user"))
    if TaskStatus(task["status"]).is_final:
        raise ApiFault(INVALID_TASK_STATUS, "it has ended", task=request.task, status=task["status"])
    return _made(call, task["user"], task=request.task)


@service.action(UserRequest)
def get_credentials(request: UserRequest, call: Call) -> Answer:
    found = key_store.of_user(call.db, _user(request, call))
    return {"credentials": [{"access_key": c.access_key, "label": c.label, "created": c.created} for c in found]}


@service.action(RevokeRequest, Access.WRITE)
def revoke_credentials(request: RevokeRequest, call: Call) -> Answer:
    """Tokens that were got with the keys end with them."""
    if request.access_key is None:
        kept = [c for c in key_store.of_user(call.db, _user(request, call)) if c.label == SERVERS_OWN]
        revoked = key_store.remove_of_user(call.db, _user(request, call))
        for credential in kept:
            key_store.add(call.db, credential)
        return {"revoked": revoked - len(kept)}
    found = key_store.get(call.db, request.access_key)
    if found is not None and found.label == SERVERS_OWN:
        raise invalid("this key is the server's own: stop it and delete secrets.json in its data folder for a new one")
    return {"revoked": key_store.remove(call.db, request.access_key)}


def _user(request: UserRequest, call: Call) -> str:
    user = request.user or call.identity.user
    if users.get(call.db, user, ("id",)) is None:
        raise invalid("there is no such user", user=user[:64])
    return user


def _made(call: Call, user: str, *, task: str = "", label: str = "") -> Answer:
    access_key, secret_key = new_access_key(), new_secret_key()
    key_store.add(call.db, Credential(access_key, hash_of(secret_key), user, task, label, call.time))
    return {"credentials": {"access_key": access_key, "secret_key": secret_key, "label": label}}


def admit_own(moment: Moment, user: str, access_key: str, secret_key: Secret) -> None:
    """The key pair of the conf file that the server writes; an earlier one is no longer good."""
    for earlier in key_store.of_label(moment.db, SERVERS_OWN):
        key_store.remove(moment.db, earlier.access_key)
    own = Credential(access_key, hash_of(secret_key.reveal()), user, "", SERVERS_OWN, moment.time)
    key_store.add(moment.db, own)


def forget_ended(moment: Moment) -> int:
    """Drop the key pairs of tasks that ended or are gone."""
    return key_store.remove_ended(moment.db, _FINAL, iso(moment.now - LINGER))
