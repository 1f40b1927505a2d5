"""Links to the machines of flightmode.toml, and to etcd through them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from flightmode.cli.options import Place
from flightmode.errors import HostRefused, HostUnreachable
from flightmode.pki import client_context
from flightmode.provision.wanted import Wanted
from flightmode.remote.port import Remote
from flightmode.remote.ssh import Login, SshHost
from flightmode.store.etcd import EtcdStore

_ETCD_DEADLINE_S = 5.0


def login_of(here: Place) -> Login:
    """How flightmode.toml says to reach its machines."""
    settings = here.config.provision
    known = here.path.absolute().parent / "known_hosts"
    return Login(settings.ssh_user, settings.ssh_port, settings.ssh_key, known)


@asynccontextmanager
async def remotes_of(here: Place, hosts: Sequence[Wanted]) -> AsyncIterator[Mapping[str, Remote]]:
    """A link to each host; the first contact pins its key beside flightmode.toml."""
    login = login_of(here)
    async with AsyncExitStack() as stack:
        links = await asyncio.gather(
            *(SshHost.connect(each.name, each.host, login) for each in hosts),
            return_exceptions=True,
        )
        for link in links:
            if isinstance(link, SshHost):
                stack.push_async_callback(link.close)
        for link in links:
            if isinstance(link, BaseException):
                raise link
        yield {link.name: link for link in links if isinstance(link, SshHost)}


@asynccontextmanager
async def etcd_through(here: Place, through: Sequence[str]) -> AsyncIterator[EtcdStore]:
    """etcd, by way of these nodes' machines, as far as they answer: firewalls let nobody else in.

    Raises HostUnreachable, HostRefused: none of them does; HostKeyChanged.
    """
    login = login_of(here)
    async with AsyncExitStack() as stack:
        urls: list[str] = []
        for name in through:
            node = here.config.nodes[name]
            try:
                link = await SshHost.connect(name, node.host, login)
            except (HostUnreachable, HostRefused):
                if name == through[-1] and not urls:
                    raise
                continue
            stack.push_async_callback(link.close)
            forward = link.forwarded(node.host, node.etcd_client_port)
            urls.append(f"https://127.0.0.1:{await stack.enter_async_context(forward)}")
        store = EtcdStore(
            tuple(urls),
            client_context(*here.tls(None, None)),
            clock=time.monotonic,
            deadline_s=_ETCD_DEADLINE_S,
        )
        stack.push_async_callback(store.close)
        yield store
