"""`flightmode switchover`: let another node lead, without loss."""

import asyncio
from typing import Annotated, Any

import typer

from flightmode.cli.asking import Asking, ask, by_operator, freshness
from flightmode.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    TlsDirectory,
    place,
)

Wait = Annotated[
    float, typer.Option("--wait", help="Seconds to wait for the end; 0: only ask.", min=0)
]


def switchover(
    to: Annotated[
        str | None,
        typer.Option("--to", help="The node that is to lead. Without it, the one in sync."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    tls: TlsDirectory = None,
    wait: Wait = 60,
    json: AsJson = False,
) -> None:
    """Let another node lead. It has every commit; writes pause for less than a second.

    Use it before you work on the primary's machine. If a step fails, everything goes back to
    where it was, and you are told which step. Until the old primary follows the new one, some
    seconds, that acknowledges alone (mode solo): what it then acknowledges is on one disk only.
    Wait for mode sync in `flightmode status` before you take anything away.
    """
    here = place(config)
    target = None if to is None else here.known(to)

    async def go() -> None:
        async with by_operator(here, here.tls(tls, None)) as cluster:
            before = (await cluster.best("/status", freshness)).body
            old = before["state"]["leader"] if before["state"] else None

            def done(status: dict[str, Any]) -> bool:
                return status["writes"] is not None and status["writes"] == (
                    target or _other(status, old)
                )

            body: dict[str, object] = {} if target is None else {"to": target}
            await ask(cluster, Asking("/switchover", body, wait, json, done))

    asyncio.run(go())


def _other(status: dict[str, Any], old: str | None) -> str | None:
    """Whoever leads now, if it is not who led before."""
    leader: str = status["state"]["leader"]
    return None if leader == old else leader
