"""``hpc-agent server``: the embedded ClearML-compatible server."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_agent.cli.context import Shared, pass_shared


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of API, files and pages; 0: any.  [default: 8008]")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder for database and files.")
@click.option(
    "--conf",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the clearml.conf that lets clients in.  [default: in the data folder]",
)
@pass_shared
def command(shared: Shared, host: str | None, port: int | None, data_dir: Path | None, conf: Path | None) -> None:
    """Run a ClearML-compatible server: API, file server and web page on one port.

    The first start makes a random key pair. Every start writes a clearml.conf with it, readable by you alone; point
    CLEARML_CONFIG_FILE at that file. Stops on Ctrl-C or SIGTERM; everything is kept in the data folder.
    """
    from hpc_agent.clock import SYSTEM
    from hpc_agent.errors import ConfigError

    try:
        from hpc_agent.server.run import Listening, Options, serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the embedded server needs the package {error.name}: pip install 'hpc-agent[server]'"
        ) from error

    def announce(listening: Listening) -> None:
        click.echo(f"Listening on {listening.url}")
        click.echo(f"Let clients in with:  export CLEARML_CONFIG_FILE={listening.conf}")
        click.echo("In a browser, log in with the access_key and secret_key from that file.")
        if not listening.loopback:
            click.echo("Other machines reach it without encryption: keep it inside the cluster's own network.")

    flags = {
        "hpc.server.host": host,
        "hpc.server.port": port,
        "hpc.server.data_dir": None if data_dir is None else str(data_dir),
    }
    settings = shared.configuration(flags).settings.hpc
    shared.start_log()
    options = Options(
        host=settings.server.host,
        port=settings.server.port,
        data_dir=settings.server_data,
        conf=conf,
        connections_per_address=settings.server.connections_per_address,
    )
    serve(options, SYSTEM, announce)
