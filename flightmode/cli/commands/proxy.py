"""`flightmode proxy`: the pool beside an application."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from flightmode.cli.log import log_as_json
from flightmode.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    Place,
    TlsDirectory,
    place,
)
from flightmode.cli.show import as_json, out
from flightmode.config import policy_of
from flightmode.proxy.settings import Places

app = typer.Typer(
    name="proxy",
    help="The pool beside your application: it always knows the primary, and holds clients "
    "through a failover.",
    invoke_without_command=True,
)

Debug = Annotated[
    bool, typer.Option("--debug", help="Say more: every client and server that comes and goes.")
]


TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Take the place of the proxy that runs here, if one does: its clients come over "
        "between two transactions, and notice nothing.",
    ),
]


@app.callback()
def proxy(
    context: typer.Context,
    config: ConfigPath = DEFAULT_CONFIG,
    tls: TlsDirectory = None,
    debug: Debug = False,
    take_over: TakeOver = False,
) -> None:
    """Run the proxy until it is told to end. Started by systemd.

    It needs flightmode.toml, a certificate of the cluster's authority (to ask etcd who is
    primary) and the password of the user `app`, or the list of users that proxy.users_file names.
    """
    if context.invoked_subcommand is not None:
        return
    # Imported here: the other verbs work where the data path was not built.
    from flightmode import _native
    from flightmode.daemon.proxy import run_proxy

    here = place(config)
    log_as_json(logging.DEBUG if debug else logging.INFO)
    _native.log_to_stderr("debug" if debug else "info")
    run_proxy(lambda: place(config).config, _places(here, tls), take_over=take_over)


@app.command()
def check(
    config: ConfigPath = DEFAULT_CONFIG, tls: TlsDirectory = None, json: AsJson = False
) -> None:
    """Say whether the proxy could start here, and what it would do. Changes nothing.

    Exit status: 0 it could; 66, 77 or 78 a file is missing, unsafe or wrong.
    """
    from flightmode.daemon.proxy import check_here

    here = place(config)
    settings = check_here(here.config, _places(here, tls))
    if json:
        as_json(settings)
        return
    mine = here.config.proxy
    out.print(f"the proxy can start: it will listen on {mine.host}:{mine.port}", highlight=False)
    servers = ", ".join(policy_of(here.config).databases)
    out.print(f"servers: {servers}; {mine.pool_mode} pooling, {mine.pool_size} servers a pool")
    out.print(f"clients are held for {mine.hold_for_s:g} s while nobody takes writes")


def _places(here: Place, tls: Path | None) -> Places:
    """Where this host keeps the proxy's files: those of the node, if it is one."""
    node = here.here()
    directory, stem = here.tls(tls, node)
    locations = here.locations(node or "proxy")
    return Places(directory, stem, locations.secrets_dir, locations.run_dir)
