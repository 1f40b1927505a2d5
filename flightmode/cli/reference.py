"""The reference pages that are made from the code: `python -m flightmode.cli.reference DIRECTORY`.

A test (tests/unit/test_reference.py) keeps them fresh.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

import flightmode
from flightmode.api import metrics
from flightmode.api import reference as api
from flightmode.cli.main import app
from flightmode.config import reference as configuration
from flightmode.errors import FlightmodeError, every_error
from flightmode.proxy import metrics as of_proxy

_MADE: Final = "<!-- Made by `python -m flightmode.cli.reference`; not edited by hand. -->"

_EXITS: Final = {
    0: "Done; or yes.",
    1: "No: the cluster could not, or would not, do it; nobody accepts writes; "
    "with `status --strict`: something is not well; rules differ.",
    2: "The command line makes no sense: an unknown verb, option or value.",
    130: "Interrupted by Ctrl-C. What was asked for stays asked for.",
}
"""Those that no error has."""


def pages() -> dict[str, str]:
    """File name -> content, below docs/reference/."""
    return {
        "configuration.md": configuration.reference(),
        "metrics.md": metrics.reference() + of_proxy.reference(),
        "errors.md": errors(),
        "exit-codes.md": exit_codes(),
        "cli.md": commands(),
        "api.md": api.reference(),
    }


# ------------------------------------------------------------------------- errors


def known_errors() -> list[type[FlightmodeError]]:
    """The whole tree, also what the rooms add to it."""
    for module in pkgutil.walk_packages(flightmode.__path__, "flightmode."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = (each for each in every_error() if each.__module__.startswith("flightmode."))
    # A class that only gathers others is never raised or told, and has no code of its own.
    return [each for each in ours if "code" in vars(each) or not each.__subclasses__()]


def errors() -> str:
    """docs/reference/errors.md."""
    rows = [
        f"| `{each.code}` | {each.__name__} | {_meaning(each)} | {each.exit_status} | "
        f"{'yes' if each.retry else ''} | `{each.hint}` |"
        for each in known_errors()
    ]
    return "\n".join(
        [
            "# Errors",
            "",
            _MADE,
            "",
            "Every error has a code that does not change, says whether trying again may help, and "
            "hints at a command. The first digit tells where to look: 1 etcd, 2 PostgreSQL, "
            "3 the fence, 4 flightmode.toml and its files, 5 the command line and the API, "
            "6 what a node decided. Nodes show the codes from FM601 to FM699 in "
            "`flightmode status` when a person is needed.",
            "",
            "| code | name | meaning | exit status | try again | hint |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _meaning(kind: type[FlightmodeError]) -> str:
    text = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    return " ".join(text.split())


def exit_codes() -> str:
    """docs/reference/exit-codes.md."""
    by_status: dict[int, list[str]] = {}
    for each in known_errors():
        by_status.setdefault(each.exit_status, []).append(each.code)
    rows = [
        f"| {status} | {_EXITS.get(status, _SYSEXITS.get(status, ''))} | "
        f"{', '.join(dict.fromkeys(by_status.get(status, [])))} |"
        for status in sorted({*by_status, *_EXITS})
    ]
    return "\n".join(
        [
            "# Exit status of `flightmode`",
            "",
            _MADE,
            "",
            "From 64 on they mean what `sysexits.h` says. With `--json` an error is one JSON "
            'object on standard error: `{"error": {"code", "message", "retry", "hint"}}`; '
            "a mistake of ours, FM599, also has a `trace`.",
            "",
            "| status | meaning | errors |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


_SYSEXITS: Final = {
    64: "The command is used wrongly.",
    65: "Data are not what they should be.",
    66: "A file that is needed is not there or can't be read.",
    69: "Something that is needed does not answer or is not there.",
    70: "A fault inside Flightmode.",
    71: "The operating system refused something.",
    72: "A file of the system is missing.",
    73: "Something can't be created: it is already there.",
    74: "Reading or writing failed.",
    75: "Not now: try again later.",
    76: "The other side speaks something else.",
    77: "Not allowed.",
    78: "The configuration is wrong.",
}


# ------------------------------------------------------------------------- commands


def commands() -> str:
    """docs/reference/cli.md."""
    group: Any = typer.main.get_command(app)
    parts = [
        "# flightmode",
        _MADE,
        "Every verb takes `--help`. `--config` is the cluster's flightmode.toml, also as "
        "`FLIGHTMODE_CONFIG`; `--node` names a node, also as `FLIGHTMODE_NODE`; `--json` answers "
        "in JSON, for programs. Exit status: [exit-codes.md](exit-codes.md).",
    ]
    for name, command in group.commands.items():
        parts += _command(name, command)
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    words = " ".join(_metavar(each) for each in arguments)
    yield f"## `flightmode {name}{f' {words}' if words else ''}`"
    yield inspect.cleandoc(command.help or "")
    rows = [f"| {_spelt(each)} | {_default(each)} | {each.help} |" for each in command.params]
    if rows:
        yield "\n".join(["| option | default | meaning |", "|---|---|---|", *rows])
    for word, each in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {word}", each)


def _metavar(argument: Any) -> str:
    word = str(argument.metavar or argument.name.upper()).strip("[]")
    return word if argument.required else f"[{word}]"


def _spelt(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{each}`" for each in parameter.opts)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "**required**"
    value = parameter.default
    return "" if value in (None, False, ()) or callable(value) else f"`{value}`"


def write(directory: Path) -> None:
    """Write all pages."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference"))
