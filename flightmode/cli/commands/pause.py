"""`flightmode pause` and `resume`: hands off for a while."""

import asyncio
import re
from typing import Annotated, Final

import typer

from flightmode.cli.asking import Asking, ask, by_operator
from flightmode.cli.commands.switchover import Wait
from flightmode.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    TlsDirectory,
    place,
)

_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600}


def seconds(text: str) -> float:
    """`90`, `90s`, `15m`, `2h` as seconds.  Raises typer.BadParameter."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    value = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not 0 < value <= 86400:
        raise typer.BadParameter(f"{text!r} is no duration like 90s, 15m or 2h (at most 24h)")
    return value


def pause(
    for_: Annotated[
        float, typer.Option("--for", parser=seconds, metavar="TIME", help="Like 90s, 15m or 2h.")
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    tls: TlsDirectory = None,
    wait: Wait = 30,
    json: AsJson = False,
) -> None:
    """No failover and no fencing for a while. It ends by itself.

    For work on the network or on etcd. Until it ends nobody takes over from a primary that dies.
    """
    _ask(config, tls, Asking("/pause", {"for_s": for_}, wait, json))


def resume(
    config: ConfigPath = DEFAULT_CONFIG,
    tls: TlsDirectory = None,
    wait: Wait = 30,
    json: AsJson = False,
) -> None:
    """End a pause now."""
    _ask(config, tls, Asking("/resume", {}, wait, json))


def _ask(config: ConfigPath, tls: TlsDirectory, wish: Asking) -> None:
    here = place(config)

    async def go() -> None:
        async with by_operator(here, here.tls(tls, None)) as cluster:
            await ask(cluster, wish)

    asyncio.run(go())
