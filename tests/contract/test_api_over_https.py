"""The API behind real TLS on loopback: who gets in, who may change something."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from flightmode.api.app import Access, make_app
from flightmode.api.listening import bind
from flightmode.api.serve import ApiServer
from flightmode.errors import PortTaken
from flightmode.pki import Authority, client_context, server_context
from flightmode.store.memory import MemoryCluster, MemoryStore
from tests.unit.test_api import NAMES, TOKEN, Face


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of one node, an operator, and somebody of another cluster."""
    base = tmp_path_factory.mktemp("tls")
    for name in ("ours", "foreign"):
        (base / name).mkdir()
        authority = Authority.create(name)
        authority.issue_node("ams", ["127.0.0.1"]).save(base / name, "node")
        authority.issue_client("operator").save(base / name, "client")
        if name == "ours":
            authority.issue_client("web").save(base / "app", "client")
    return base


@pytest_asyncio.fixture
async def url(tls: Path) -> AsyncIterator[str]:
    app = make_app(Face(), MemoryStore(MemoryCluster()), "main", Access(TOKEN, NAMES))
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    context = server_context(tls / "ours", client_required=False)
    server = ApiServer(app, listening, context)
    serving = asyncio.create_task(server.run())
    yield f"https://127.0.0.1:{port}"
    server.stop()
    await asyncio.wait_for(serving, 10)


def anonymous(tls: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=tls / "ours" / "ca.crt")


async def ask(
    method: str, url: str, tls: ssl.SSLContext, **options: object
) -> tuple[int, str, bytes]:
    timeout = aiohttp.ClientTimeout(10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(method, url, ssl=tls, **options) as reply,  # type: ignore[arg-type]
    ):
        return reply.status, reply.headers.get("server", ""), await reply.read()


async def test_a_load_balancer_without_a_certificate_may_look(url: str, tls: Path) -> None:
    assert (await ask("GET", f"{url}/primary", anonymous(tls)))[0] == 200
    assert await ask("HEAD", f"{url}/primary", anonymous(tls)) == (200, "", b"")


async def test_without_a_certificate_nothing_is_changed(url: str, tls: Path) -> None:
    assert (await ask("POST", f"{url}/resume", anonymous(tls)))[0] == 403


@pytest.mark.parametrize("stem", ["client", "node"])
async def test_a_certificate_of_the_cluster_may_change_something(
    url: str, tls: Path, stem: str
) -> None:
    status, _, body = await ask("POST", f"{url}/resume", client_context(tls / "ours", stem))
    assert status == 202, body


async def test_the_certificate_of_an_application_s_host_may_look_and_change_nothing(
    url: str, tls: Path
) -> None:
    web = client_context(tls / "app", "client")
    assert (await ask("GET", f"{url}/primary", web))[0] == 200
    status, _, body = await ask("POST", f"{url}/resume", web)
    assert (status, b"that of web" in body) == (403, True)


async def test_the_token_may_change_something(url: str, tls: Path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert (await ask("POST", f"{url}/resume", anonymous(tls), headers=headers))[0] == 202


async def test_a_certificate_of_another_cluster_does_not_get_in(url: str, tls: Path) -> None:
    context = client_context(tls / "foreign", "client")
    context.load_verify_locations(tls / "ours" / "ca.crt")
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        await ask("GET", f"{url}/primary", context)


async def test_who_does_not_know_our_authority_does_not_trust_us(url: str) -> None:
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await ask("GET", f"{url}/primary", ssl.create_default_context())


async def test_plain_http_is_not_served(url: str, tls: Path) -> None:
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await ask("GET", f"http{url.removeprefix('https')}/primary", anonymous(tls))


async def test_old_tls_is_not_served(url: str, tls: Path) -> None:
    old = anonymous(tls)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        await ask("GET", f"{url}/primary", old)


async def test_an_agent_that_ends_gives_its_port_back(tls: Path) -> None:
    app = make_app(Face(), MemoryStore(MemoryCluster()), "main", Access(None, NAMES))
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    context = server_context(tls / "ours", client_required=False)
    serving = asyncio.create_task(ApiServer(app, listening, context).run())
    assert (await ask("GET", f"https://127.0.0.1:{port}/health", anonymous(tls)))[0] == 200
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(serving, 10)
    bind("127.0.0.1", port).close()


def test_a_taken_port_is_named() -> None:
    first = bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    try:
        with pytest.raises(PortTaken, match=f"127.0.0.1 port {port}: Address already in use"):
            bind("127.0.0.1", port)
    finally:
        first.close()


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(PortTaken, match="Cannot assign requested address"):
        bind("192.0.2.1", 8008)
