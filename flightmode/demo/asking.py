"""Asking a node as a person does: by its API, with the operator's certificate."""

import asyncio
import time

import aiohttp

from flightmode.config.derive import api_url
from flightmode.demo.cluster import DemoCluster
from flightmode.errors import RehearsalFailed
from flightmode.pki import client_context

_DEADLINE = aiohttp.ClientTimeout(total=5.0)
_WELL_S = 20.0
_POLL_S = 0.02


def _session(cluster: DemoCluster) -> aiohttp.ClientSession:
    tls = client_context(cluster.directory / "operator", "client")
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=_DEADLINE)


async def ask_for_switchover(cluster: DemoCluster, target: str) -> None:
    """Returns when the wish is written down.  Raises RehearsalFailed when it is refused."""
    url = f"{api_url(cluster.config, target)}/switchover"
    async with _session(cluster) as session, session.post(url, json={"to": target}) as answer:
        if answer.status != 202:
            raise RehearsalFailed(f"the switchover was refused: {await answer.text()}")


async def until_well(cluster: DemoCluster, node: str) -> None:
    """Wait until a new agent has had its first look, and does its part.

    Before that, a Postgres that dies is one that it never saw run: it starts it again in its place.
    Raises RehearsalFailed.
    """
    url, until_s = f"{api_url(cluster.config, node)}/health", time.monotonic() + _WELL_S
    async with _session(cluster) as session:
        while time.monotonic() < until_s:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                """It does not listen yet."""
            await asyncio.sleep(_POLL_S)
    raise RehearsalFailed(f"the agent of {node} is not well after {_WELL_S:.0f} s")
