"""Users of the embedded server: who calls, and in whose name an administrator may."""

from __future__ import annotations

from typing import Any

import jwt
import msgspec
import pytest
from faulty_server import faulty_server

from hpc_agent.api.client import Client
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.config.load import load
from hpc_agent.errors import InputError
from hpc_agent.redact import Secret


@pytest.fixture
def alice(api: Any) -> str:
    return str(api("auth.create_user", name="alice", email="a@b")["id"])


def as_user(api: Any, user: str, action: str, **fields: Any) -> Any:
    headers = {**api.headers, "X-Clearml-Impersonate-As": user}
    return api.parsed(api.raw(f"/{action}", "POST", json=fields, headers=headers))


def claims(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def client_of(client: Client, token: Secret) -> Client:
    return Client(ApiSettings(api_server=client.session.settings.api_server, auth_token=token))


def test_users_are_listed_with_the_administrator_among_them(api: Any, alice: str) -> None:
    me = api("users.get_current_user")["user"]
    listed = {user["id"]: user for user in api("users.get_all")["users"]}
    assert listed[me["id"]]["role"] == "admin"
    assert (listed[alice]["name"], listed[alice]["role"]) == ("alice", "user")
    assert [user["id"] for user in api("users.get_all", name="^alice$", only_fields=["name"])["users"]].count(
        alice
    ) == 1


def test_an_administrator_calls_in_anothers_name(api: Any, alice: str) -> None:
    task = as_user(api, alice, "tasks.create", name="hers", type="training").data["id"]
    assert api("tasks.get_by_id", task=task)["task"]["user"] == alice
    assert as_user(api, alice, "users.get_current_user").data["user"]["name"] == "alice"


def test_token_obtained_for_a_user_is_that_users(api: Any, alice: str) -> None:
    token = as_user(api, alice, "auth.login", expiration_sec=600).data["token"]
    assert claims(token)["identity"]["user"] == alice
    assert claims(token)["identity"]["role"] == "user"
    headers = {"Authorization": f"Bearer {token}"}
    assert api.parsed(api.raw("/users.get_current_user", headers=headers)).data["user"]["id"] == alice
    renewed = api.parsed(api.raw("/auth.login", headers=headers)).data["token"]
    assert claims(renewed)["identity"]["user"] == alice


def test_user_cannot_act_for_others(api: Any, alice: str) -> None:
    token = as_user(api, alice, "auth.login").data["token"]
    admin = api("users.get_current_user")["user"]["id"]
    headers = {"Authorization": f"Bearer {token}", "X-Clearml-Impersonate-As": admin}
    assert api.parsed(api.raw("/users.get_current_user", headers=headers)).code == "400/6"
    refused = api.raw("/auth.create_user", "POST", json={"name": "x"}, headers={"Authorization": f"Bearer {token}"})
    assert api.parsed(refused).code == "403/20"


def test_an_unknown_user_is_refused(api: Any) -> None:
    answer = as_user(api, "nobody", "tasks.get_all")
    assert answer.code == "400/6"
    assert "unknown user" in answer.meta["result_msg"]


def test_the_client_gets_an_owners_token(client: Client, api: Any, alice: str) -> None:
    client.owners.check()
    hers = client_of(client, client.owners.token(alice))
    task = hers.tasks.create({"name": "by alice", "type": "training"})
    assert client.tasks.get(task).user == alice
    with pytest.raises(InputError, match=r"needs an administrator's credentials; those in use have the role user"):
        hers.owners.check()


def test_client_reports_why_it_gets_no_token(client: Client) -> None:
    with pytest.raises(InputError, match=r"no token of the task's owner unknown-user: .*unknown user"):
        client.owners.token("unknown-user")
    with pytest.raises(InputError, match="has no owner"):
        client.owners.token("")


def test_server_that_ignores_the_header_is_recognised(client: Client) -> None:
    # The server in between passes no other header on than it must.
    with faulty_server(client.session.settings.api_server, {}) as url:
        ignorant = Client(msgspec.structs.replace(client.session.settings, api_server=url))
        with pytest.raises(InputError, match="needs a server that gives administrators the tokens of task owners"):
            ignorant.owners.check()
        with pytest.raises(InputError, match="the server gave one of user"):
            ignorant.owners.token("alice")


def test_the_administrator_keeps_the_id_after_a_restart(start_clearml_server: Any) -> None:
    first = start_clearml_server()
    before = Client(load(first.conf, {}).settings.api).session.claims["identity"]["user"]
    first.stop()
    second = start_clearml_server()
    again = Client(load(second.conf, {}).settings.api)
    assert again.session.claims["identity"]["user"] == before
    assert len(again.session.call("users.get_all")["users"]) == 1
