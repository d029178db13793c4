"""``hpc-agent server``: the embedded ClearML-compatible server, and its users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.shared_options import HELP, Shared, pass_shared

if TYPE_CHECKING:
    from hpc_agent.api.credentials import User, UsersApi
    from hpc_agent.config.load import Configuration
    from hpc_agent.config.server_settings import ServerSettings
    from hpc_agent.server.startup import CertificateFiles, Listening

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(invoke_without_command=True, context_settings=HELP)
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of API, files and pages; 0: any.  [default: 8008]")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder for database and files.")
@click.option("--conf", type=FILE, help="Where to write the clearml.conf for clients.  [in the data folder]")
@click.option("--certfile", type=FILE, help="Serve HTTPS with this certificate (PEM).")
@click.option("--keyfile", type=FILE, help="Its key (PEM), where it is not in the same file.")
@click.option("--max-upload-mb", type=click.IntRange(1), help="MiB that one uploaded file may have.  [default: 51200]")
@click.option("--max-storage-mb", type=click.IntRange(1), help="MiB that all uploaded files may take.")
@click.pass_context
def command(ctx: click.Context, /, conf: Path | None, **given: object) -> None:
    """Run a ClearML-compatible server: API, file server and web page on one port.

    The first start makes a random key pair. Every start writes a clearml.conf with it, readable by you alone; point
    CLEARML_CONFIG_FILE at that file. Stops on Ctrl-C or SIGTERM; everything is kept in the data folder.
    """
    if ctx.invoked_subcommand is None:
        flags = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
        _serve(ctx.obj, flags, conf)
    elif named := [name for name, value in {"conf": conf, **given}.items() if value is not None]:
        flag = "--" + named[0].replace("_", "-")
        raise click.UsageError(f"{flag} is for the server itself; options of {ctx.invoked_subcommand} follow it")


def _serve(shared: Shared, flags: dict[str, object], conf: Path | None) -> None:
    from datetime import timedelta

    from hpc_agent.clock import SYSTEM
    from hpc_agent.errors import ConfigError

    try:
        from hpc_agent.server.quota import UploadLimits
        from hpc_agent.server.startup import ServerOptions, serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the embedded server needs the package {error.name}: pip install 'hpc-agent[server]'"
        ) from error
    hpc = shared.configuration({f"hpc.server.{name}": value for name, value in flags.items()}).settings.hpc
    server = hpc.server
    shared.start_log()
    options = ServerOptions(
        host=server.host,
        port=server.port,
        data_dir=hpc.server_data,
        connections_per_address=server.connections_per_address,
        uploads=UploadLimits(server.max_upload_mb, server.max_storage_mb),
        certificate=_certificate(server),
        keep_events=timedelta(days=server.keep_events_days) if server.keep_events_days else None,
        conf=conf,
    )
    serve(options, SYSTEM, _announce)


def _certificate(server: ServerSettings) -> CertificateFiles | None:
    from hpc_agent.errors import ConfigError
    from hpc_agent.server.startup import CertificateFiles

    if server.certfile is None:
        if server.keyfile is not None:
            raise ConfigError("--keyfile needs the certificate too: --certfile (hpc.server.certfile)")
        return None
    return CertificateFiles(server.certfile, server.keyfile)


def _announce(listening: Listening) -> None:
    click.echo(f"Listening on {listening.url}")
    click.echo(f"Clients connect with:  export CLEARML_CONFIG_FILE={listening.conf}")
    click.echo("In a browser, log in with the access_key and secret_key from that file.")
    if not listening.private:
        click.echo(
            "Other machines reach it without encryption: keep it inside the cluster's network, or use --certfile."
        )


@command.command(context_settings=HELP)
@click.argument("file", type=FILE)
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="The server's folder.")
@pass_shared
def backup(shared: Shared, file: Path, data_dir: Path | None) -> None:
    """Copy the database to FILE, while the server runs or not.

    The copy is one moment of the database, checked before it gets its name, and readable by you alone (0600). Copy the
    folder of uploaded files, which is printed, after it. Runs on the server's machine as the server's user.
    """
    from hpc_agent.server.store.backup import back_up
    from hpc_agent.server.store.schema import DATABASE

    flags = {} if data_dir is None else {"hpc.server.data_dir": str(data_dir)}
    folder = shared.configuration(flags).settings.hpc.server_data
    size = back_up(folder / DATABASE, file)
    click.echo(f"The database is in {file} ({size / 1e6:.1f} MB); uploaded files are in {folder / 'files'}")


@command.group(context_settings=HELP)
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
    """Make keys for NAME, a new or an existing user, and print a clearml.conf with them.

    The secret is shown once: the server keeps its hash only.
    """
    from hpc_agent.config.client_conf import client_conf
    from hpc_agent.file_records import write_atomic

    configuration, users = _users(shared)
    present = users.named(name)
    if present is not None and present.role != role:
        click.echo(f"{name} exists already and stays {present.role}", err=True)
    pair = users.new_keys(present.id if present else users.create(name, role), label)
    note = (
        f"{name}'s key pair: ~/clearml.conf, or the file that CLEARML_CONFIG_FILE names. Keep it readable by you alone."
    )
    text = client_conf(configuration.settings.api, pair.access_key, pair.secret_key, note)
    if conf is None:
        click.echo(text, nl=False)
        return
    write_atomic(conf, text.encode(), mode=0o600)
    click.echo(f"{name}'s clearml.conf is {conf}: hand it over privately")


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
    """Revoke the keys of NAME at once, with every token that was issued for them.

    Without --key the jobs that run NAME's tasks lose their credentials too. What NAME made stays.
    """
    from hpc_agent.errors import InputError

    users = _users(shared)[1]
    present = users.named(name)
    if present is None:
        raise InputError(f'there is no user "{name}"; `hpc-agent server user list` shows all')
    if key is None:
        click.echo(f"Revoked {users.revoke(present.id)} keys of {name}")
        return
    if key not in {one.access_key for one in present.keys}:
        raise InputError(f"{name} has no key {key}; `hpc-agent server user list` shows all")
    users.revoke_key(key)
    click.echo(f"Revoked the key {key} of {name}")


def _users(shared: Shared) -> tuple[Configuration, UsersApi]:
    from hpc_agent.api.credentials import UsersApi
    from hpc_agent.retry import INTERACTIVE

    configuration = shared.configuration()
    shared.start_log()
    return configuration, UsersApi(shared.client(configuration, INTERACTIVE).session)


def _as_json(one: User) -> dict[str, object]:
    keys = [{"access_key": key.access_key, "label": key.label, "created": key.created} for key in one.keys]
    return {"id": one.id, "name": one.name, "role": one.role, "keys": keys}
