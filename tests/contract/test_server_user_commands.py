"""``hpc-agent server user``: members get keys, use them, and lose them while the server runs."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.errors import ApiError, AuthError
from hpc_agent.server.services.auth import SERVERS_OWN


class Commands:
    """Runs ``hpc-agent server user …`` with the keys of a conf file."""

    def __init__(self, conf: Path, home: Path) -> None:
        self._env = {**os.environ, "HOME": str(home), "CLEARML_CONFIG_FILE": str(conf)}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "hpc_agent", "server", "user", *arguments]
        return subprocess.run(argv, env=self._env, capture_output=True, text=True, timeout=60)

    def listed(self) -> dict[str, Any]:
        done = self("list", "--json")
        assert done.returncode == 0, done.stderr
        return {user["name"]: user for user in json.loads(done.stdout)}


@pytest.fixture
def server(start_clearml_server: Any) -> Any:
    return start_clearml_server()


@pytest.fixture
def user(server: Any, tmp_path: Path) -> Commands:
    return Commands(server.conf, tmp_path)


def client(conf: Path) -> Client:
    return Client(load(conf, {}).settings.api)


def test_a_member_gets_keys_works_with_them_and_loses_them_at_once(user: Commands, tmp_path: Path) -> None:
    conf = tmp_path / "alice.conf"
    added = user("add", "alice", "--conf", str(conf), "--label", "laptop")
    assert added.returncode == 0, added.stderr
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600
    alice = client(conf)
    task = alice.tasks.create({"name": "hers", "type": "training"})
    assert alice.session.claims["identity"]["role"] == "user"
    listed = user.listed()["alice"]
    assert (listed["role"], [key["label"] for key in listed["keys"]]) == ("user", ["laptop"])
    assert listed["keys"][0]["access_key"] in user("list").stdout
    revoked = user("revoke", "alice")
    assert (revoked.returncode, revoked.stdout) == (0, "Revoked 1 keys of alice\n")
    # With the token that she has, and with her keys.
    for caller in (alice, client(conf)):
        with pytest.raises(AuthError, match="revoked"):
            caller.tasks.get(task)
    assert user.listed()["alice"]["keys"] == []


def test_one_key_of_several_is_revoked_and_a_known_name_gets_another(user: Commands, tmp_path: Path) -> None:
    first, second = tmp_path / "first.conf", tmp_path / "second.conf"
    user("add", "bob", "--conf", str(first))
    user("add", "bob", "--conf", str(second))
    users = user.listed()
    assert [name for name in users if name == "bob"] == ["bob"]
    key = client(first).session.settings.access_key
    assert user("revoke", "bob", "--key", key).stdout == f"Revoked the key {key} of bob\n"
    with pytest.raises(AuthError):
        client(first).session.login()
    client(second).session.login()


def test_the_conf_of_a_member_is_printed_where_no_file_is_named(user: Commands, tmp_path: Path, server: Any) -> None:
    printed = user("add", "carol", "--role", "admin").stdout
    conf = tmp_path / "carol.conf"
    conf.write_text(printed)
    assert f'api_server: "{server.url}"' in printed
    assert Commands(conf, tmp_path)("add", "dave").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("revoke", "nobody"), 'there is no user "nobody"'),
        (("revoke", "alice", "--key", "ABC"), "alice has no key ABC"),
    ],
)
def test_missing_user_or_key_is_reported_in_one_sentence(user: Commands, arguments: tuple[str, ...], said: str) -> None:
    user("add", "alice")
    done = user(*arguments)
    assert (done.returncode, said in done.stderr, len(done.stderr.splitlines())) == (2, True, 1)


def test_user_manages_no_other_users(user: Commands, tmp_path: Path) -> None:
    conf = tmp_path / "eve.conf"
    user("add", "eve", "--conf", str(conf))
    for arguments in (("add", "another"), ("list",), ("revoke", "eve")):
        done = Commands(conf, tmp_path)(*arguments)
        assert (done.returncode, "403/20" in done.stderr) == (1, True)


def test_keys_outlive_a_restart_and_the_servers_own_too(start_clearml_server: Any, tmp_path: Path) -> None:
    first = start_clearml_server()
    conf = tmp_path / "alice.conf"
    Commands(first.conf, tmp_path)("add", "alice", "--conf", str(conf))
    first.stop()
    start_clearml_server(port=int(first.url.rsplit(":", 1)[1]))
    client(conf).session.login()
    client(first.conf).session.login()


def test_new_secrets_make_the_old_ones_worthless(start_clearml_server: Any, tmp_path: Path) -> None:
    first = start_clearml_server()
    old = client(first.conf)
    old.session.login()
    first.stop()
    (first.data_dir / "secrets.json").unlink()
    before = first.conf.read_text()
    second = start_clearml_server(port=int(first.url.rsplit(":", 1)[1]))
    assert second.conf.read_text() != before
    with pytest.raises(AuthError):
        old.session.call("users.get_all")


def test_unreachable_server_is_reported(tmp_path: Path, user: Commands, server: Any) -> None:
    server.stop()
    done = user("list")
    assert (done.returncode, "cannot be reached" in done.stderr) == (69, True)


def test_a_members_label_writes_nothing_on_the_administrators_terminal(user: Commands, tmp_path: Path) -> None:
    user("add", "mallory", "--conf", str(tmp_path / "mallory.conf"))
    session = client(tmp_path / "mallory.conf").session
    for label in ("x\x1b]0;title\x07", "x\nroot  admin", "\x9b2J"):
        with pytest.raises(ApiError, match="control characters are not allowed"):
            session.call("auth.create_credentials", {"label": label})
    refused = user("add", "evil\x1b[2J")
    assert refused.returncode == 1
    assert "line breaks and control characters are not allowed" in refused.stderr


def test_no_member_makes_a_key_that_cannot_be_revoked(user: Commands, tmp_path: Path) -> None:
    user("add", "mallory", "--conf", str(tmp_path / "mallory.conf"))
    session = client(tmp_path / "mallory.conf").session
    with pytest.raises(ApiError, match="cannot be revoked"):
        session.call("auth.create_credentials", {"label": SERVERS_OWN})
    session.call("auth.create_credentials", {"label": "mine"})
    assert "2 keys" in user("revoke", "mallory").stdout
    with pytest.raises(AuthError):
        session.call("users.get_current_user")
