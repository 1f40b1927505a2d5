"""`flightmode agent` and `fence`: what systemd starts on a node."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from flightmode.cli.fencing import BINARY, cgroup_root, fence_argv
from flightmode.cli.log import log_as_json
from flightmode.cli.options import DEFAULT_CONFIG, ConfigPath, NodeName, place
from flightmode.errors import ProgramMissing
from flightmode.pki.files import make_directory
from flightmode.postgres.user import system_user


def agent(config: ConfigPath = DEFAULT_CONFIG, node: NodeName = None) -> None:
    """Run the agent of this node until it is told to end. Started by systemd.

    Ending it leaves Postgres running: the fence holds it, and the next agent goes on.
    """
    # Imported here: the other verbs work where etcd's or Postgres' libraries do not.
    from flightmode.daemon.node import run_agent

    here = place(config)
    name = here.node(node)
    log_as_json()
    run_agent(here.config, name)


def fence(
    config: ConfigPath = DEFAULT_CONFIG,
    node: NodeName = None,
    watchdog: Annotated[
        Path | None,
        typer.Option("--watchdog", help="A device to use if it is there; flightmode.toml's first."),
    ] = None,
) -> None:
    """Run the fence of this node: the parent of Postgres, which stops it when it must.

    Becomes the program `flightmode-fence`, with the options that flightmode.toml asks for.
    """
    here = place(config)
    name = here.node(node)
    root = os.geteuid() == 0
    uid = system_user(here.config.postgres.user).pw_uid if root else None
    argv = fence_argv(
        here, name, root=root, postgres_uid=uid, cgroups=cgroup_root(), watchdog=watchdog
    )
    program = find_fence()
    _make_run_dir(here.locations(name).run_dir, uid)
    os.execv(program, [str(program), *argv[1:]])


def _make_run_dir(run_dir: Path, uid: int | None) -> None:
    """A new one belongs to the user that the agent and Postgres run as: they need the socket."""
    if run_dir.is_dir():
        return
    make_directory(run_dir)
    if uid is not None:
        os.chown(run_dir, uid, -1)


def find_fence() -> Path:
    """The binary beside this interpreter, else on the PATH.  Raises ProgramMissing."""
    beside = Path(sys.executable).parent / BINARY
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which(BINARY)
    if found is None:
        raise ProgramMissing(f"the program {BINARY} is not installed", hint=f"which {BINARY}")
    return Path(found)
