"""Log in, who am I, who else is there, what server is this."""

from __future__ import annotations

from typing import Literal

from hpc_agent.server import listing
from hpc_agent.server.action import Access, Answer, Call, Json, Moment, Name, RequestBody, Service
from hpc_agent.server.api_fault import refuse_control_characters
from hpc_agent.server.authentication import ADMIN, API_VERSION, SERVER_VERSION, AuthenticatedCaller
from hpc_agent.server.new_ids import new_id
from hpc_agent.server.store import documents

auth = Service("auth")
users = Service("users")
server = Service("server")
services = (auth, users, server)


class LoginRequest(RequestBody, frozen=True):
    expiration_sec: int | None = None


@auth.action(LoginRequest, login=True)
def login(request: LoginRequest, call: Call) -> Answer:
    """A token for whoever the Authorization header already proved to be."""
    return {"token": call.authenticator.issue(call.identity, request.expiration_sec)}


class CreateUserRequest(RequestBody, frozen=True):
    name: Name
    email: str = ""
    role: Literal["admin", "user"] = "user"


@auth.action(CreateUserRequest, Access.WRITE)
def create_user(request: CreateUserRequest, call: Call) -> Answer:
    """A member of the group; has no keys until ``create_credentials`` makes some."""
    refuse_control_characters(request.name, "name")
    refuse_control_characters(request.email, "email")
    id = new_id()
    _insert(call, AuthenticatedCaller(id, request.name, role=request.role), request.email)
    return {"id": id}


def remember(moment: Moment, owner: AuthenticatedCaller) -> None:
    """The administrator is a user as all others, and may change name from start to start."""
    if not documents.users.update(moment.db, owner.user, {"name": owner.user_name, "role": ADMIN}):
        _insert(moment, owner)


def _insert(moment: Moment, who: AuthenticatedCaller, email: str = "") -> None:
    fields = {"id": who.user, "name": who.user_name, "role": who.role, "company": who.company, "email": email}
    documents.users.insert(moment.db, {**fields, "created": moment.time, "tags": [], "system_tags": []})


@users.action(Json)
def get_all(request: Json, call: Call) -> Answer:
    found, beside = listing.find(call.db, documents.users, request)
    return {"users": found, **beside}


@users.action(RequestBody)
def get_current_user(request: RequestBody, call: Call) -> Answer:
    who = call.identity
    return {
        "user": {
            "id": who.user,
            "name": who.user_name,
            "role": who.role,
            "company": {"id": who.company, "name": who.company_name},
        }
    }


@users.action(RequestBody)
def get_vaults(request: RequestBody, call: Call) -> Answer:
    return {"vaults": []}


@server.action(RequestBody)
def info(request: RequestBody, call: Call) -> Answer:
    return {"version": SERVER_VERSION, "build": "hpc-agent", "api_version": API_VERSION, "feature_set": "basic"}
