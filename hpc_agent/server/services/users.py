"""``users.*`` and ``login.*``: the people of this server, and what the page remembers of each."""

from __future__ import annotations

from typing import Any

import msgspec

from hpc_agent.server import listing
from hpc_agent.server.action import Access, Answer, Call, Ids, Json, RequestBody, Service
from hpc_agent.server.api_fault import ApiFault, invalid, refuse_control_characters
from hpc_agent.server.listing import with_subprojects
from hpc_agent.server.store import project_queries
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import models, tasks, users
from hpc_agent.server.store.project_queries import in_projects
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import INVALID_USER_ID

service = Service("users")
login = Service("login")
services = (service, login)

_DEEPEST = 20
_LARGEST = 200_000
"""Characters of all preferences of one user."""


class OneUserRequest(RequestBody, frozen=True):
    user: str


class UpdateRequest(OneUserRequest, frozen=True):
    name: str | None = None


class PreferencesRequest(RequestBody, frozen=True):
    preferences: Json
    return_updated: bool = True


@service.action(Json, Access.READ)
def get_all(request: Json, call: Call) -> Answer:
    """List users."""
    found, paging = listing.find(call.db, users, request)
    return {"users": found, **paging}


class _Active(RequestBody, frozen=True):
    active_in_projects: Ids | None = None


@service.action(Json, Access.READ)
def get_all_ex(request: Json, call: Call) -> Answer:
    """List users; with ``active_in_projects`` those who have tasks or models there, or anywhere where it is empty."""
    wanted = msgspec.convert(request, decodable(_Active), strict=False).active_in_projects
    extra = []
    if wanted is not None:
        ids = with_subprojects(call.db, wanted) if wanted else None
        active = [project_queries.distinct(call.db, c, "user", [in_projects(c, ids)]) for c in (tasks, models)]
        extra = [q.one_of(q.field(users.table, "id"), [*active[0], *active[1]])]
    found, paging = listing.find(call.db, users, request, extra=extra, options=frozenset({"active_in_projects"}))
    return {"users": found, **paging}


@service.action(OneUserRequest, Access.READ)
def get_by_id(request: OneUserRequest, call: Call) -> Answer:
    """One user."""
    found = users.get(call.db, request.user)
    if found is None:
        raise ApiFault(INVALID_USER_ID, id=request.user[:64])
    return {"user": found}


@service.action(RequestBody, Access.READ)
def get_current_user(request: RequestBody, call: Call) -> Answer:
    """The calling user, with role and company."""
    who = call.identity
    return {
        "user": {
            "id": who.user,
            "name": who.user_name,
            "role": who.role,
            "company": {"id": who.company, "name": who.company_name},
            "preferences": _preferences(call),
        }
    }


@service.action(UpdateRequest, Access.WRITE)
def update(request: UpdateRequest, call: Call) -> Answer:
    """Change one's name."""
    if request.name is None:
        return {"updated": 0, "fields": {}}
    refuse_control_characters(request.name, "name")
    if not request.name.strip():
        raise invalid("a user needs a name")
    return {"updated": users.update(call.db, request.user, {"name": request.name}), "fields": {"name": request.name}}


@service.action(RequestBody, Access.READ)
def get_vaults(request: RequestBody, call: Call) -> Answer:
    """Always empty: this server has no vaults."""
    return {"vaults": []}


@service.action(RequestBody, Access.READ)
def get_preferences(request: RequestBody, call: Call) -> Answer:
    """What clients have stored for the calling user."""
    return {"preferences": _preferences(call)}


def _preferences(call: Call) -> Json:
    found = users.get(call.db, call.identity.user, ("preferences",)) or {}
    return dict(found.get("preferences") or {})


@service.action(PreferencesRequest, Access.WRITE)
def set_preferences(request: PreferencesRequest, call: Call) -> Answer:
    """Store values for the calling user: ``{"a.b": 1}`` sets ``b`` in ``a``."""
    preferences = _preferences(call)
    for path, value in request.preferences.items():
        _set(preferences, path.split("."), value)
    if len(msgspec.json.encode(preferences)) > _LARGEST:
        raise invalid(f"the preferences of a user may have {_LARGEST} characters")
    updated = users.update(call.db, call.identity.user, {"preferences": preferences})
    return {"updated": updated, **({"fields": preferences} if request.return_updated else {})}


def _set(preferences: Json, path: list[str], value: Any) -> None:
    if len(path) > _DEEPEST or not all(path):
        raise invalid("the name of a preference is made of words between dots", field=".".join(path)[:100])
    inner = preferences
    for name in path[:-1]:
        below = inner.get(name)
        inner[name] = below if isinstance(below, dict) else {}
        inner = inner[name]
    inner[path[-1]] = value


@login.action(RequestBody, Access.READ, public=True)
def supported_modes(request: RequestBody, call: Call) -> Answer:
    """How users log in here: with their key pairs. Needs no credentials itself."""
    basic = {"enabled": True, "guest": {"enabled": False}}
    return {"basic": basic, "sso": {}, "sso_providers": [], "server_errors": {}, "authenticated": False}
