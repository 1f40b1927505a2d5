"""Asking for a switchover as a person does: by a node's API, with the operator's certificate."""

import aiohttp

from flightmode.config.derive import api_url
from flightmode.demo.cluster import DemoCluster
from flightmode.errors import RehearsalFailed
from flightmode.pki import client_context

_DEADLINE = aiohttp.ClientTimeout(total=5.0)


async def ask_for_switchover(cluster: DemoCluster, target: str) -> None:
    """Returns when the wish is written down.  Raises RehearsalFailed when it is refused."""
    tls = client_context(cluster.directory / "operator", "client")
    url = f"{api_url(cluster.config, target)}/switchover"
    connector = aiohttp.TCPConnector(ssl=tls)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=_DEADLINE) as session,
        session.post(url, json={"to": target}) as answer,
    ):
        if answer.status != 202:
            raise RehearsalFailed(f"the switchover was refused: {await answer.text()}")
