"""Log in, who am I, what server is this."""

from __future__ import annotations

from hpc_agent.server.action import Answer, Call, Request, Service
from hpc_agent.server.identity import API_VERSION, SERVER_VERSION, lifetime

auth = Service("auth")
users = Service("users")
server = Service("server")
services = (auth, users, server)


class LoginRequest(Request, frozen=True):
    expiration_sec: int | None = None


@auth.action(LoginRequest, login=True)
def login(request: LoginRequest, call: Call) -> Answer:
    """A token for whoever the Authorization header already proved to be."""
    return {"token": call.authenticator.issue(call.identity, lifetime(request.expiration_sec))}


@users.action(Request)
def get_current_user(request: Request, call: Call) -> Answer:
    who = call.identity
    return {
        "user": {
            "id": who.user,
            "name": who.user_name,
            "role": who.role,
            "company": {"id": who.company, "name": who.company_name},
        }
    }


@users.action(Request)
def get_vaults(request: Request, call: Call) -> Answer:
    return {"vaults": []}


@server.action(Request)
def info(request: Request, call: Call) -> Answer:
    return {"version": SERVER_VERSION, "build": "hpc-agent", "api_version": API_VERSION, "feature_set": "basic"}
