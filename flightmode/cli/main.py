"""The command `flightmode`."""

import json
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from flightmode import __version__
from flightmode.cli.show import err
from flightmode.cli.verbs import Verbs
from flightmode.errors import FlightmodeError, StepFailed, Unforeseen

app = typer.Typer(
    name="flightmode",
    cls=Verbs,
    help="PostgreSQL that fails over by itself and loses nothing it acknowledged.",
    epilog="Every error has a code (docs/reference/errors.md) and a hint: what to type next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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

    Words that make no sense end with 2, Ctrl-C with 130: that is typer's part.  Whatever nobody
    thought of is FM599, with its trace.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        app(args=words, prog_name="flightmode")
    except FlightmodeError as failure:
        if isinstance(failure, StepFailed) and failure.hint_text == StepFailed.hint:
            # Each verb that carries out steps goes on where it stopped.
            failure.hint_text = shlex.join(["flightmode", *words])
        _tell(failure, (), as_json="--json" in words)
        sys.exit(failure.exit_status)
    except Exception as mistake:
        unforeseen = Unforeseen("".join(traceback.format_exception_only(mistake)).strip())
        _tell(unforeseen, traceback.format_exception(mistake), as_json="--json" in words)
        sys.exit(unforeseen.exit_status)


def _tell(failure: FlightmodeError, trace: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        told: dict[str, object] = {
            "code": failure.code,
            "message": failure.message,
            "retry": failure.retry,
            "hint": failure.hint_text,
        }
        if trace:
            told["trace"] = "".join(trace)
        print(json.dumps({"error": told}, ensure_ascii=False), file=sys.stderr)
        return
    if trace:
        err.print("".join(trace), markup=False, highlight=False, soft_wrap=True, end="")
    err.print(f"error {failure.code}: ", style="bold red", end="")
    err.print(failure.message, markup=False, soft_wrap=True)
    err.print(f"  hint: {failure.hint_text}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    run()
