"""How one proxy process follows another: see `flightmode.proxy.takeover`."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from flightmode import _native
from flightmode.config import Config, etcd_endpoints, policy_of
from flightmode.errors import TakeOverFailed
from flightmode.pki import client_context
from flightmode.proxy.news import News
from flightmode.proxy.settings import Places
from flightmode.proxy.takeover import Giver, Heir, is_trusted, listen, peer_of, tell_systemd
from flightmode.proxy.watching import Watcher
from flightmode.store.etcd import EtcdStore

_log = structlog.get_logger("daemon.succession")

TAKE_OVER = "--take-over"
_PRIMARY_WITHIN_S = 15.0


async def first_news(config: Config, places: Places, clock: Callable[[], float]) -> News:
    """Who takes writes: clients are taken over by nobody who does not know it.

    Raises TakeOverFailed.
    """
    found: asyncio.Future[News] = asyncio.get_running_loop().create_future()

    def hear(news: News) -> None:
        if news.primary is not None and not found.done():
            found.set_result(news)

    store = EtcdStore(
        etcd_endpoints(config), client_context(places.tls_dir, places.tls_stem), clock=clock
    )
    watcher = Watcher(store, config.cluster.name, policy_of(config), clock, hear)
    watching = asyncio.create_task(watcher.run())
    try:
        async with asyncio.timeout(_PRIMARY_WITHIN_S):
            return await found
    except TimeoutError:
        raise TakeOverFailed(
            f"nobody was seen to take writes for {_PRIMARY_WITHIN_S:g} s: "
            "the proxy that runs keeps its clients",
            hint="flightmode status",
        ) from None
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await store.close()


@dataclass
class Place:
    """The place of a proxy that runs, for whoever comes to take it."""

    data_path: _native.Proxy
    places: Places
    settings: Callable[[], str]
    """As at the start: where to listen again if the heir dies."""
    on_given: Callable[[], None]
    on_kept: Callable[[], None]

    async def offer(self) -> None:
        """Until somebody has taken it, and no client is left; or cancelled."""
        is_given = False
        while not is_given:
            with listen(self.places.run_dir) as listener:
                heir = await self._heir(listener)
            with heir.link:
                is_given = await self._give(heir)
        _log.info("every client was handed over")
        signal.raise_signal(signal.SIGTERM)

    async def _heir(self, listener: socket.socket) -> Giver:
        """The first who may take over and is ready to serve."""
        while True:
            link, _ = await asyncio.get_running_loop().sock_accept(listener)
            pid, user = peer_of(link)
            giver = Giver(link, self.data_path)
            link.setblocking(True)
            if not is_trusted(link):
                _log.warning("nobody else may take over", pid=pid, user=user)
            elif await _in_thread(giver.offer, link):
                _log.info("another proxy takes over", pid=pid)
                return giver
            link.close()

    async def _give(self, heir: Giver) -> bool:
        self.on_given()
        tell_systemd(peer_of(heir.link)[0])
        if await _in_thread(heir.give, heir.link):
            return True
        await asyncio.to_thread(heir.keep, self.settings())
        tell_systemd(os.getpid())
        self.on_kept()
        return False


async def _in_thread(run: Callable[[], bool], link: socket.socket) -> bool:
    """To its end; when cancelled, `run` ends because its link does."""
    running = asyncio.create_task(asyncio.to_thread(run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        await running
        raise


async def inherit(heir: Heir, data_path: _native.Proxy) -> None:
    """Take every client that the other proxy hands over, until it has none left."""

    def run() -> bool:
        count = heir.adopt_all(data_path, _native.check_parcel)
        _log.info("the proxy that ran here has ended", clients=count)
        return True

    await _in_thread(run, heir.link)


async def start_heir() -> None:
    """A process of what is installed now, which will take over from this one.

    It is nobody's child, so that systemd hears of its end.
    """
    command = [*sys.orig_argv, *([] if TAKE_OVER in sys.orig_argv else [TAKE_OVER])]
    shell = await asyncio.create_subprocess_exec("/bin/sh", "-c", '"$@" &', "sh", *command)
    await shell.wait()
