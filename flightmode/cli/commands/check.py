"""`flightmode check`: is flightmode.toml right, and does this machine fit it?"""

from dataclasses import asdict
from typing import Annotated

import typer

from flightmode.cli.checks import Finding, look_around
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, NodeName, place
from flightmode.cli.show import as_json, out
from flightmode.errors import CheckFailed

_MARKS = {
    "ok": "[green]ok[/green]     ",
    "warning": "[yellow]warning[/yellow]",
    "error": "[red]error[/red]  ",
}


def check(
    config: ConfigPath = DEFAULT_CONFIG,
    node: NodeName = None,
    file_only: Annotated[
        bool, typer.Option("--file-only", help="Look at flightmode.toml alone.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Say what is wrong with flightmode.toml, and with this machine. Changes nothing.

    On a machine that is no node, and without --node, only the file is looked at.
    Exit status: 0 fit; 78 something has to be put right first.
    """
    here = place(config)
    name = node if node is None else here.known(node)
    name = name or here.here()
    findings = [Finding("ok", f"{config} is right: {len(here.config.nodes)} nodes")]
    if name is not None and not file_only:
        findings += look_around(here, name)
    if json:
        as_json({"node": name, "findings": [asdict(each) for each in findings]})
    else:
        _show(findings)
    errors = sum(each.level == "error" for each in findings)
    if errors:
        raise CheckFailed(f"{errors} to put right", hint=_first_hint(findings))


def _show(findings: list[Finding]) -> None:
    for each in findings:
        out.print(f"{_MARKS[each.level]}  {each.what}", soft_wrap=True)
        if each.level != "ok" and each.hint is not None:
            out.print(f"           hint: {each.hint}", soft_wrap=True)


def _first_hint(findings: list[Finding]) -> str:
    hints = (each.hint for each in findings if each.level == "error" and each.hint)
    return next(hints, CheckFailed.hint)
