"""`flightmode config apply` and `flightmode certs renew`: new files for a cluster that serves."""

import asyncio
import time
from functools import partial
from typing import Annotated, Any

import typer

from flightmode.cli.commands.moved import nobody_has_moved
from flightmode.cli.commands.provision import show_plan
from flightmode.cli.commands.reaching import remotes_of
from flightmode.cli.commands.rolling import NOTHING_NEW, Rolling
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Place, place
from flightmode.cli.show import as_json, out
from flightmode.errors import BundleMissing, RequestUnfinished, StepFailed
from flightmode.model.member import OPERATOR
from flightmode.pki import Authority
from flightmode.provision.apply import plan_all
from flightmode.provision.restarts import DIRECTIONS, Restart, Turn, order, shrinks

WaitWhole = Annotated[
    float, typer.Option("--wait", help="So many seconds for the cluster to be whole again.")
]

config = typer.Typer(name="config", help="Change the settings.", no_args_is_help=True)
certs = typer.Typer(name="certs", help="Change the certificates.", no_args_is_help=True)


@config.callback()
def _settings() -> None:
    """Change the settings of the cluster that runs."""


@certs.callback()
def _certificates() -> None:
    """Change the certificates of the cluster that runs."""


@config.command()
def apply(
    config: ConfigPath = DEFAULT_CONFIG,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done. Changes nothing.")
    ] = False,
    wait_s: WaitWhole = 300.0,
    json: AsJson = False,
) -> None:
    """Bring an edited flightmode.toml to all machines, one after the other.

    PostgreSQL reads its settings again; those that need a restart get it: the standby, a
    switchover, the old primary. Settings that may not be lower on a standby and shrink (like
    max_connections) restart the primary in its place, first: writes pause for some seconds.
    Refused while the cluster is not whole, and for a node that is another machine than it was:
    `flightmode node replace` exchanges those. When it stops in the middle, type it again.
    Flightmode itself stays the version it is.
    """
    asyncio.run(_apply(place(config), wait_s=wait_s, only_plan=plan, json=json))


@certs.command()
def renew(
    config: ConfigPath = DEFAULT_CONFIG,
    wait_s: WaitWhole = 300.0,
    json: AsJson = False,
) -> None:
    """Issue every certificate anew, and bring them to all machines, one after the other.

    Nobody is disconnected, and the primary stays where it is. It needs ca/ beside flightmode.toml;
    the authority itself stays the same. Refused while the cluster is not whole. When it stops in
    the middle, type it again: old and new certificates are good at the same time.
    """
    asyncio.run(_renew(place(config), wait_s=wait_s, json=json))


def _rolling(here: Place, *, wait_s: float, json: bool) -> Rolling:
    planner = partial(plan_all, here.config, release=None)
    return Rolling(here, planner, NOTHING_NEW, wait_s=wait_s, json=json)


async def _apply(here: Place, *, wait_s: float, only_plan: bool, json: bool) -> None:
    began_s = time.monotonic()
    rolling = _rolling(here, wait_s=wait_s, json=json)
    if only_plan:
        show_plan(await rolling.plans(rolling.order(await rolling.primary())), json=json)
        return
    steps = await rolling.all(primary_last=False)
    await _read_again(here, rolling)
    turns = await _restarts(here, rolling)
    for each in turns:
        rolling.tell(f"{each.turn} {each.node}")
        if each.turn is Turn.SWITCH_OVER:
            await rolling.switch_over(each.node)
        else:
            await rolling.ask("/restart", each.node)
    left = {name: names for name, names in _waiting(await rolling.status()).items() if names}
    if left:
        text = f"settings still wait for a restart: {left}; another run goes on from here"
        raise RequestUnfinished(text, hint="flightmode config apply")
    took_s = time.monotonic() - began_s
    if json:
        told = [{"turn": each.turn.value, "node": each.node} for each in turns]
        as_json({"steps": steps, "restarts": told, "took_s": round(took_s, 1)})
        return
    how = f"{len(turns)} restarts" if turns else "nothing had to restart"
    out.print(f"all machines have {here.path}; {how}; this took {took_s:.0f} s", soft_wrap=True)


async def _renew(here: Place, *, wait_s: float, json: bool) -> None:
    began_s = time.monotonic()
    rolling = _rolling(here, wait_s=wait_s, json=json)
    await rolling.primary()
    await nobody_has_moved(here)
    _issue(here)
    steps = await rolling.all(primary_last=False)
    await _read_again(here, rolling)
    took_s = time.monotonic() - began_s
    if json:
        as_json({"steps": steps, "took_s": round(took_s, 1)})
        return
    out.print(f"all machines have new certificates; this took {took_s:.0f} s")


def _issue(here: Place) -> None:
    """New keys and certificates in the operator's directory.  Raises BundleMissing."""
    home = here.path.absolute().parent
    if not (home / "ca" / "ca.key").exists():
        raise BundleMissing(f"{home}/ca/ca.key is not here, and nobody else can issue certificates")
    authority = Authority.load(home / "ca")
    for name, node in here.config.nodes.items():
        authority.issue_node(name, [node.host]).save(home / "nodes" / name / "tls", "node")
    for name in here.config.provision.apps:
        authority.issue_client(name).save(home / "apps" / name / "tls", "client")
    authority.issue_client(OPERATOR).save(home / "operator", "client")


async def _read_again(here: Place, rolling: Rolling) -> None:
    """Every Postgres reads its settings, rules of access and certificates."""
    for name in _waiting(await rolling.status()):
        await rolling.ask("/reload", name)


def _waiting(status: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """For each database node the settings that wait for a restart."""
    nodes = (node for node in status["nodes"] if node["kind"] != "witness")
    return {node["name"]: tuple(node["pending_restart"]) for node in nodes}


async def _restarts(here: Place, rolling: Rolling) -> list[Restart]:
    """Raises RequestWrong, StepFailed."""
    primary, waiting = await rolling.primary(), _waiting(await rolling.status())
    if not any(waiting.values()):
        return []
    return order(waiting, primary, primary_first=shrinks(await _directions(here, rolling, primary)))


async def _directions(here: Place, rolling: Rolling, primary: str) -> dict[str, int]:
    """Of the settings that may not be lower on a standby: whether they grow or shrink."""
    host, config = rolling.wanted(primary), here.config
    asked = (
        f"runuser -u {config.postgres.user} -- psql -h {host.socket_dir} "
        f"-p {config.nodes[primary].postgres_port} -XqAt -F ' ' -f -"
    )
    async with remotes_of(here, [host]) as remotes:
        answer = await remotes[primary].run(asked, stdin=DIRECTIONS.encode())
    if answer.status != 0:
        raise StepFailed(f"{primary} did not say which settings change: {answer.err.strip()}")
    pairs = (line.split() for line in answer.out.splitlines())
    return {name: int(sign) for name, sign in pairs}
