"""``hpc-agent server user``: who may call the embedded server, asked of it while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.shared_options import Shared, pass_shared

if TYPE_CHECKING:
    from hpc_agent.api.credentials import User, UsersApi
    from hpc_agent.config.load import Configuration

HELP = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=HELP)
def user() -> None:
    """Add, list and revoke users of a running server.

    Calls the server of your configuration with your keys, which must be an administrator's: those of the clearml.conf
    that the server writes (CLEARML_CONFIG_FILE).
    """


@user.command(context_settings=HELP)
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["user", "admin"]), default="user", show_default=True, help="What NAME may do."
)
@click.option("--label", default="", metavar="TEXT", help="What the key is for, shown in the list.")
@click.option("--conf", type=click.Path(dir_okay=False, path_type=Path), help="Write NAME's clearml.conf here (0600).")
@pass_shared
def add(shared: Shared, name: str, role: str, label: str, conf: Path | None) -> None:
    """Make keys for NAME, a new user or one that is there already, and print a clearml.conf with them.

    The secret is shown once: the server keeps its hash only.
    """
    from hpc_agent.config.client_conf import client_conf
    from hpc_agent.file_records import write_atomic

    configuration, users = _users(shared)
    present = users.named(name)
    if present is not None and present.role != role:
        click.echo(f"{name} is there already and stays {present.role}", err=True)
    pair = users.new_keys(present.id if present else users.create(name, role), label)
    note = (
        f"{name}'s key pair: ~/clearml.conf, or the file that CLEARML_CONFIG_FILE names. Keep it readable by you alone."
    )
    text = client_conf(configuration.settings.api, pair.access_key, pair.secret_key, note)
    if conf is None:
        click.echo(text, nl=False)
        return
    write_atomic(conf, text.encode(), mode=0o600)
    click.echo(f"{name}'s clearml.conf is {conf}: hand it over where nobody else reads it")


@user.command(name="list", context_settings=HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_shared
def list_(shared: Shared, as_json: bool) -> None:
    """List the users, what they may do, and their keys."""
    found = _users(shared)[1].all()
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in found], indent=2))
        return
    for one in found:
        click.echo(f"{one.name}  {one.role}  {one.id}")
        for key in one.keys:
            click.echo("    " + "  ".join(filter(None, (key.access_key, key.created[:19], key.label))))
        if not one.keys:
            click.echo("    no keys")


@user.command(context_settings=HELP)
@click.argument("name")
@click.option("--key", metavar="ACCESS_KEY", help="This key only; by default all of them.")
@pass_shared
def revoke(shared: Shared, name: str, key: str | None) -> None:
    """Take away the keys of NAME at once, and with them every token that was got with them.

    Without --key the jobs that run NAME's tasks lose their credentials too. What NAME made stays.
    """
    from hpc_agent.errors import InputError

    users = _users(shared)[1]
    present = users.named(name)
    if present is None:
        raise InputError(f'there is no user "{name}"; `hpc-agent server user list` shows all')
    if key is None:
        click.echo(f"{name} has lost {users.revoke(present.id)} keys")
        return
    if key not in {one.access_key for one in present.keys}:
        raise InputError(f"{name} has no key {key}; `hpc-agent server user list` shows all")
    users.revoke_key(key)
    click.echo(f"{name} has lost the key {key}")


def _users(shared: Shared) -> tuple[Configuration, UsersApi]:
    from hpc_agent.api.credentials import UsersApi
    from hpc_agent.retry import INTERACTIVE

    configuration = shared.configuration()
    shared.start_log()
    return configuration, UsersApi(shared.client(configuration, INTERACTIVE).session)


def _as_json(one: User) -> dict[str, object]:
    keys = [{"access_key": key.access_key, "label": key.label, "created": key.created} for key in one.keys]
    return {"id": one.id, "name": one.name, "role": one.role, "keys": keys}
