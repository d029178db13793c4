"""``hpc-agent server``: the embedded ClearML-compatible server, and its users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.server_users import user
from hpc_agent.cli.shared_options import Shared

if TYPE_CHECKING:
    from hpc_agent.config.settings import ServerSettings
    from hpc_agent.server.startup import CertificateFiles, Listening

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of API, files and pages; 0: any.  [default: 8008]")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder for database and files.")
@click.option("--conf", type=FILE, help="Where to write the clearml.conf that lets clients in.  [in the data folder]")
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


command.add_command(user)


def _serve(shared: Shared, flags: dict[str, object], conf: Path | None) -> None:
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
        conf=conf,
    )
    serve(options, SYSTEM, _announce)


def _certificate(server: ServerSettings) -> CertificateFiles | None:
    from hpc_agent.errors import ConfigError
    from hpc_agent.server.startup import CertificateFiles

    if server.certfile is None:
        if server.keyfile is not None:
            raise ConfigError("a key alone makes no HTTPS: name its certificate with --certfile (hpc.server.certfile)")
        return None
    return CertificateFiles(server.certfile.expanduser(), server.keyfile and server.keyfile.expanduser())


def _announce(listening: Listening) -> None:
    click.echo(f"Listening on {listening.url}")
    click.echo(f"Let clients in with:  export CLEARML_CONFIG_FILE={listening.conf}")
    click.echo("In a browser, log in with the access_key and secret_key from that file.")
    if not listening.private:
        click.echo(
            "Other machines reach it without encryption: keep it inside the cluster's network, or use --certfile."
        )
