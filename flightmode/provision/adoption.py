"""A look at a PostgreSQL on another machine, by the Flightmode that is going to run it there."""

import asyncio
import json
import shlex
from typing import Any

from flightmode.errors import DataUnreadable, NotAdoptable, StepFailed
from flightmode.provision.apply import carry_out
from flightmode.provision.plan import Plan, Step, install_command
from flightmode.provision.wheels import build
from flightmode.remote.ssh import Login, SshHost

PROGRAM = "/opt/flightmode/current/bin/flightmode"
_TAIL = 1200


async def look_from_afar(host: str, data_dir: str, login: Login) -> dict[str, Any]:
    """What `flightmode adoptable --json` says there.  Nothing that runs there is disturbed.

    It brings Flightmode to the machine, into /opt/flightmode, and starts nothing.
    Raises HostUnreachable, HostRefused, StepFailed; NotAdoptable with the reasons; DataUnreadable.
    """
    login.known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    release = await asyncio.to_thread(build)
    link = await SshHost.connect(host, host, login)
    try:
        packages = Step("install python3-venv", install_command(["python3", "python3-venv"]))
        bring = Step(f"install {release.name}", release=True)
        plan = Plan(host, (), (packages, bring))
        await carry_out([plan], {host: link}, release, lambda _: None)
        done = await link.run(f"{PROGRAM} adoptable {shlex.quote(data_dir)} --json")
    finally:
        await link.close()
    if done.status == 0:
        told: dict[str, Any] = json.loads(done.out)
        return told
    try:
        error = json.loads(done.err)["error"]
    except (ValueError, KeyError):
        raise StepFailed(f"{host}: {(done.err or done.out).strip()[-_TAIL:]}") from None
    for kind in (NotAdoptable, DataUnreadable):
        if error["code"] == kind.code:
            raise kind(f"{host}: {error['message']}", hint=error["hint"])
    raise StepFailed(f"{host}: {error['message']}", hint=error["hint"])
