"""The command `flightmode`."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from flightmode import __version__
from flightmode.cli.commands import (
    adoptable,
    check,
    failover,
    init,
    life,
    logs,
    nodes,
    pause,
    processes,
    provision,
    proxy,
    status,
    switchover,
    upgrade,
    why,
)
from flightmode.cli.show import err
from flightmode.errors import FlightmodeError

app = typer.Typer(
    name="flightmode",
    help="PostgreSQL that fails over by itself and loses nothing it acknowledged.",
    epilog="Every error has a code (docs/reference/errors.md) and a hint: what to type next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_LOOK, _ACT, _BUILD, _RUN = "Look", "Act", "Build", "Started by systemd"
for _verb, _panel in (
    (status.status, _LOOK),
    (why.why, _LOOK),
    (logs.logs, _LOOK),
    (why.replay, _LOOK),
    (switchover.switchover, _ACT),
    (failover.failover, _ACT),
    (pause.pause, _ACT),
    (pause.resume, _ACT),
    (nodes.restart, _ACT),
    (nodes.reload, _ACT),
    (nodes.reinit, _ACT),
    (init.init, _BUILD),
    (adoptable.adoptable, _BUILD),
    (check.check, _BUILD),
    (provision.provision, _BUILD),
    (upgrade.upgrade, _BUILD),
    (life.destroy, _BUILD),
    (processes.agent, _RUN),
    (processes.fence, _RUN),
):
    app.command(rich_help_panel=_panel)(_verb)
app.add_typer(life.node, rich_help_panel=_BUILD)
app.add_typer(proxy.app, rich_help_panel=_RUN)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"flightmode {__version__}")
        raise typer.Exit


@app.callback()
def flightmode(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """PostgreSQL that fails over by itself and loses nothing it acknowledged."""


def run(argv: Sequence[str] | None = None) -> None:
    """Carry out a command line and exit as documented in docs/reference/exit-codes.md.

    Words that make no sense end with 2, Ctrl-C with 130: that is typer's part.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        app(args=words, prog_name="flightmode")
    except FlightmodeError as failure:
        _tell(failure, as_json="--json" in words)
        sys.exit(failure.exit_status)


def _tell(failure: FlightmodeError, *, as_json: bool) -> None:
    if as_json:
        told = {
            "code": failure.code,
            "message": failure.message,
            "retry": failure.retry,
            "hint": failure.hint_text,
        }
        print(json.dumps({"error": told}, ensure_ascii=False), file=sys.stderr)
        return
    err.print(f"error {failure.code}: ", style="bold red", end="")
    err.print(failure.message, markup=False, soft_wrap=True)
    err.print(f"  hint: {failure.hint_text}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    run()
