"""How a command that changes machines reaches the cluster: a port, and the real thing."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol

from flightmode.cli.asking import Asking, by_operator, carry
from flightmode.cli.commands.moved import nobody_has_moved
from flightmode.cli.commands.provision import bring
from flightmode.cli.commands.reaching import etcd_through, remotes_of
from flightmode.cli.commands.wholeness import status_of
from flightmode.cli.options import Place
from flightmode.provision.wanted import File, Wanted
from flightmode.remote.port import Remote
from flightmode.store.etcd_members import EtcdMembers


class Ways(Protocol):
    """Everything outside of the operator's directory that an exchange of machines touches."""

    async def status(self, here: Place) -> dict[str, Any]:
        """As the node that knows best has it.  Raises NodeUnreachable and its like."""

    async def ask(self, here: Place, wish: Asking) -> None:
        """Raises RequestRefused, RequestUnfinished."""

    async def nobody_has_moved(self, here: Place) -> None:
        """Raises RequestWrong: a node is another machine by flightmode.toml than by etcd."""

    def etcd(self, here: Place, through: Sequence[str]) -> AbstractAsyncContextManager[EtcdMembers]:
        """By way of these nodes' machines.  Raises HostUnreachable, HostRefused."""

    def remotes(
        self, here: Place, hosts: Sequence[Wanted]
    ) -> AbstractAsyncContextManager[Mapping[str, Remote]]:
        """A link to each.  Raises HostUnreachable, HostRefused, HostKeyChanged."""

    async def bring(
        self,
        here: Place,
        names: list[str],
        *,
        extra: Mapping[str, tuple[File, ...]],
        wait_s: float,
        json: bool,
    ) -> None:
        """Raises what `provision` documents."""


class _OverTheNetwork:
    """The nodes' APIs, and SSH."""

    async def status(self, here: Place) -> dict[str, Any]:
        return await status_of(here)

    async def ask(self, here: Place, wish: Asking) -> None:
        async with by_operator(here, here.tls(None, None)) as cluster:
            await carry(cluster, wish)

    async def nobody_has_moved(self, here: Place) -> None:
        await nobody_has_moved(here)

    @asynccontextmanager
    async def etcd(self, here: Place, through: Sequence[str]) -> AsyncIterator[EtcdMembers]:
        async with etcd_through(here, through) as store:
            yield store.members

    def remotes(
        self, here: Place, hosts: Sequence[Wanted]
    ) -> AbstractAsyncContextManager[Mapping[str, Remote]]:
        return remotes_of(here, hosts)

    async def bring(
        self,
        here: Place,
        names: list[str],
        *,
        extra: Mapping[str, tuple[File, ...]],
        wait_s: float,
        json: bool,
    ) -> None:
        await bring(here, names, extra=extra, wait_s=wait_s, json=json)


NETWORK: Final[Ways] = _OverTheNetwork()
