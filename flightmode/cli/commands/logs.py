"""`flightmode logs`: what the agent, the fence and Postgres wrote."""

import os
import shutil
import subprocess
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, NodeName, Place, place
from flightmode.cli.show import as_json
from flightmode.errors import FileMissing, ProgramMissing, RequestWrong

_UNITS = {"agent": "flightmode-agent", "fence": "flightmode-fence"}


def logs(
    config: ConfigPath = DEFAULT_CONFIG,
    node: NodeName = None,
    postgres: Annotated[bool, typer.Option("--postgres", help="Of Postgres.")] = False,
    fence: Annotated[bool, typer.Option("--fence", help="Of the fence.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", help="How many of the last.", min=1)] = 100,
    json: AsJson = False,
) -> None:
    """The last lines that the agent of this machine wrote; or Postgres, or the fence.

    From files in the node's state directory where there are some, else from journald: Postgres
    always writes into a file. With --json and --follow each line is an object of its own.
    """
    if postgres and fence:
        raise RequestWrong("--postgres and --fence are two logs", hint="flightmode logs --help")
    here = place(config)
    what = "postgres" if postgres else "fence" if fence else "agent"
    path = log_file(here, here.node(node), what)
    if path is None:
        _journald(_UNITS[what], lines, follow=follow, json=json)
    elif follow:
        _follow(path, lines, json=json)
    elif json:
        as_json({"file": str(path), "lines": tail(path, lines)})
    else:
        for line in tail(path, lines):
            print(line)


def log_file(here: Place, node: str, what: str) -> Path | None:
    """Where that is written; None: to journald, as by systemd's units."""
    locations = here.locations(node)
    if what == "postgres":
        return locations.postgres_log
    places = [locations.state_dir, locations.state_dir / "log", locations.state_dir.parent]
    found = [path for each in places for path in each.glob(f"{what}*.log") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def tail(path: Path, count: int) -> list[str]:
    """The last lines of a file.  Raises FileMissing."""
    try:
        with path.open(errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=count)]
    except OSError as wrong:
        raise FileMissing(f"{path} can't be read: {wrong.strerror}", hint=f"ls -l {path}") from None


def _follow(path: Path, lines: int, *, json: bool) -> None:
    """Until Ctrl-C, also through a rotation of the file.  Raises FileMissing."""
    tail(path, 1)
    argv = ["tail", "-n", str(lines), "-F", "--", str(path)]
    if not json:
        _become(argv)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, errors="replace") as following:
        assert following.stdout is not None
        try:
            for line in following.stdout:
                as_json({"file": str(path), "line": line.rstrip("\n")}, one_line=True)
        finally:
            following.terminate()


def _journald(unit: str, lines: int, *, follow: bool, json: bool) -> None:
    argv = ["journalctl", "--no-pager", f"--unit={unit}", f"--lines={lines}"]
    argv += ["--follow"] if follow else []
    argv += ["--output=json"] if json else []
    _become(argv)


def _become(argv: list[str]) -> None:
    if shutil.which(argv[0]) is None:
        text = f"there is no log file in the state directory, and no {argv[0]} on this machine"
        raise ProgramMissing(text, hint="flightmode check")
    os.execvp(argv[0], argv)
