"""``auth.*`` and ``server.*``: logins, users, and key pairs of users and tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from hpc_agent.domain.status import TaskStatus
from hpc_agent.redact import Secret
from hpc_agent.server.action import (
    Access,
    Answer,
    Call,
    Ids,
    Json,
    Name,
    RequestBody,
    Service,
    Transaction,
    iso,
)
from hpc_agent.server.api_fault import ApiFault, invalid, refuse_control_characters
from hpc_agent.server.authentication import ADMIN, API_VERSION, LINGER, SERVER_VERSION, AuthenticatedCaller
from hpc_agent.server.owner_credentials import new_access_key, new_secret_key
from hpc_agent.server.services.batch import for_each
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import documents, key_store
from hpc_agent.server.store.documents import new_id
from hpc_agent.server.store.key_store import Credential, hash_of
from hpc_agent.wire.error_kinds import INVALID_TASK_STATUS

auth = Service("auth")
server = Service("server")
services = (auth, server)

SERVERS_OWN = "of this server's conf file"
"""Label of the key pair that the server writes into its conf file."""
_FINAL_STATUSES = [status.value for status in TaskStatus if status.is_final]


class LoginRequest(RequestBody, frozen=True):
    expiration_sec: int | None = None


@auth.action(LoginRequest, Access.READ, login=True)
def login(request: LoginRequest, call: Call) -> Answer:
    """A token for the user or task whose key pair or token the Authorization header has."""
    return {"token": call.authenticator.issue(call.identity, request.expiration_sec)}


class CreateUserRequest(RequestBody, frozen=True):
    name: Name
    email: str = ""
    role: Literal["admin", "user"] = "user"


@auth.action(CreateUserRequest, Access.WRITE)
def create_user(request: CreateUserRequest, call: Call) -> Answer:
    """Add a user, who has no keys until ``auth.create_credentials`` makes some."""
    refuse_control_characters(request.name, "name")
    refuse_control_characters(request.email, "email")
    id = new_id()
    _insert(call, AuthenticatedCaller(id, request.name, role=request.role), request.email)
    return {"id": id}


def store_administrator(moment: Transaction, owner: AuthenticatedCaller) -> None:
    """Add the administrator to the users, or update the name, which may change from start to start."""
    if not documents.users.update(moment.db, owner.user, {"name": owner.user_name, "role": ADMIN}):
        _insert(moment, owner)


def _insert(moment: Transaction, who: AuthenticatedCaller, email: str = "") -> None:
    fields = {"id": who.user, "name": who.user_name, "role": who.role, "company": who.company, "email": email}
    documents.users.insert(moment.db, {**fields, "created": moment.time, "tags": [], "system_tags": []})


@server.action(RequestBody, Access.READ)
def info(request: RequestBody, call: Call) -> Answer:
    """Versions of the server and of its API."""
    return {"version": SERVER_VERSION, "build": "hpc-agent", "api_version": API_VERSION, "feature_set": "basic"}


@server.action(RequestBody, Access.READ)
def config(request: RequestBody, call: Call) -> Answer:
    """What of this server's configuration clients may know: nothing."""
    return {}


class UserRequest(RequestBody, frozen=True):
    user: str | None = None
    """Owner of the keys; the caller if empty."""


class CreateCredentialsRequest(UserRequest, frozen=True):
    label: str = ""


class RevokeRequest(UserRequest, frozen=True):
    access_key: str | None = None
    """The key to revoke; all of the user, those of running jobs too, if empty."""


class TaskRequest(RequestBody, frozen=True):
    task: str


class EditCredentialsRequest(RequestBody, frozen=True):
    access_key: str
    label: str = ""


class EditUserRequest(RequestBody, frozen=True):
    user: str
    role: Literal["admin", "user"]


@auth.action(EditCredentialsRequest, Access.WRITE)
def edit_credentials(request: EditCredentialsRequest, call: Call) -> Answer:
    """Change the label of a key pair."""
    refuse_control_characters(request.label, "label")
    found = key_store.get(call.db, request.access_key)
    if found is None or SERVERS_OWN in (found.label, request.label):
        return {"updated": 0}
    key_store.remove(call.db, request.access_key)
    key_store.add(call.db, replace(found, label=request.label[:200]))
    return {"updated": 1}


@auth.action(EditUserRequest, Access.WRITE)
def edit_user(request: EditUserRequest, call: Call) -> Answer:
    """Make a user an administrator, or an administrator a user."""
    if request.user == call.identity.user:
        raise invalid("administrators keep their own role: another one may change it")
    updated = documents.users.update(call.db, request.user, {"role": request.role})
    return {"updated": updated, "fields": {"role": request.role} if updated else {}}


@auth.action(CreateCredentialsRequest, Access.WRITE)
def create_credentials(request: CreateCredentialsRequest, call: Call) -> Answer:
    """Make a key pair for a user. The secret is in this answer only: the server keeps its hash."""
    refuse_control_characters(request.label, "label")
    if request.label == SERVERS_OWN:
        raise invalid("this label is the server's own: its key cannot be revoked", field="label")
    return _made(call, _user(request, call), label=request.label[:200])[1]


@auth.action(TaskRequest, Access.WRITE)
def create_task_credentials(request: TaskRequest, call: Call) -> Answer:
    """Make the key pair with which a job runs this task; it acts for the owner and ends with the task."""
    return _made_for_task(call, request.task)


class ManyTasksRequest(RequestBody, frozen=True):
    ids: Ids


@auth.action(ManyTasksRequest, Access.WRITE)
def create_task_credentials_many(request: ManyTasksRequest, call: Call) -> Answer:
    """Make a key pair for each of these tasks, as ``auth.create_task_credentials`` does."""
    return for_each(call, request.ids, lambda id: _made_for_task(call, id))


def _made_for_task(call: Call, task: str) -> Json:
    found = existing_task(call, task, ("status", "user"))
    if TaskStatus(found["status"]).is_final:
        raise ApiFault(INVALID_TASK_STATUS, "it has ended", task=task, status=found["status"])
    credential, made = _made(call, found["user"], task=task)
    # With a token a job need not log in first.
    return {**made, "token": call.authenticator.issue_for(call.db, credential)}


@auth.action(UserRequest, Access.READ)
def get_credentials(request: UserRequest, call: Call) -> Answer:
    """The access keys of a user, with their labels."""
    found = key_store.of_user(call.db, _user(request, call))
    return {"credentials": [{"access_key": c.access_key, "label": c.label, "created": c.created} for c in found]}


@auth.action(RevokeRequest, Access.WRITE)
def revoke_credentials(request: RevokeRequest, call: Call) -> Answer:
    """Revoke one key pair or all of a user, with all tokens that were issued for them."""
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
    if documents.users.get(call.db, user, ("id",)) is None:
        raise invalid("unknown user", user=user[:64])
    return user


def _made(call: Call, user: str, *, task: str = "", label: str = "") -> tuple[Credential, Json]:
    access_key, secret_key = new_access_key(), new_secret_key()
    credential = Credential(access_key, hash_of(secret_key), user, task, label, call.time)
    key_store.add(call.db, credential)
    return credential, {"credentials": {"access_key": access_key, "secret_key": secret_key, "label": label}}


def replace_own_key_pair(moment: Transaction, user: str, access_key: str, secret_key: Secret) -> None:
    """The key pair of the conf file that the server writes; replaces an earlier one."""
    for earlier in key_store.of_label(moment.db, SERVERS_OWN):
        key_store.remove(moment.db, earlier.access_key)
    own = Credential(access_key, hash_of(secret_key.reveal()), user, "", SERVERS_OWN, moment.time)
    key_store.add(moment.db, own)


def delete_ended_keys(moment: Transaction) -> int:
    """Drop the key pairs of tasks that ended or are gone."""
    return key_store.remove_ended(moment.db, _FINAL_STATUSES, iso(moment.now - LINGER))
