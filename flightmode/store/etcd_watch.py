"""A watch that survives its members: it moves on, resumes, and says when it may have missed.

Intuition: a frozen member's stream looks exactly like a quiet one.  So we keep
asking for a sign of life: every third of `silence_s` a progress request goes up
the same stream, and if for `silence_s` nothing at all comes down, the member is
left for another one.  (etcd's own progress messages come every 10 minutes, and
how often can be set only from 3.5 on.  Where a member should not answer progress
requests, the effect is a fresh connection every `silence_s`, without a gap.)

Rule: resume at the last *event's* revision + 1.  The revision in the header of
`created` and of progress messages may run ahead of events still to come.

A member that lost its leader ends the stream by itself (`hasleader`).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Final, TypeVar

from flightmode.store.endpoints import Endpoints, Floor
from flightmode.store.gateway import Failed, Gateway
from flightmode.store.port import Change
from flightmode.store.wire import Malformed, WatchNews, read_watch, watch_body

T = TypeVar("T")
Yields = AsyncGenerator[T, None]

PAUSES_S: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Before the next member is tried, by the number of failures in a row."""


class Watch:
    """One watch: where it stands, and on which member."""

    def __init__(
        self,
        gateway: Gateway,
        endpoints: Endpoints,
        *,
        clock: Callable[[], float],
        floor: Callable[[], Floor],
        silence_s: float,
    ) -> None:
        self._gateway = gateway
        self._endpoints = endpoints
        self._clock = clock
        self._floor = floor
        self._silence_s = silence_s
        self._failures = 0

    async def run(
        self, prefix: str, from_revision: int
    ) -> AsyncGenerator[tuple[Change, ...], None]:
        """Changes without end, until the gateway is closed.  See `Store.watch`."""
        while not self._gateway.closed.is_set():
            url = self._endpoints.order()[0]
            try:
                async with aclosing(self._news(url, prefix, from_revision)) as stream:
                    async for news in stream:
                        self._failures = 0
                        if news.compact_revision > from_revision:
                            from_revision = news.compact_revision
                            yield ()
                            break
                        if news.canceled is not None:
                            raise Failed(f"the member ended the watch: {news.canceled}")
                        if news.changes:
                            from_revision = news.changes[-1].mod_revision + 1
                            yield news.changes
            except Failed:
                self._endpoints.failed(url, self._clock())
                await self._pause()

    async def _pause(self) -> None:
        pause_s = PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gateway.closed.wait(), pause_s)

    async def _news(self, url: str, prefix: str, from_revision: int) -> Yields[WatchNews]:
        """The messages of one stream on one member; raises Failed at its end, or in silence."""
        requests = self._requests(prefix, from_revision)
        opening = self._gateway.open_watch(url, requests, self._silence_s)
        stream = await self._unless_silent(opening)
        try:
            while True:
                news = read_watch(await self._unless_silent(stream.next()))
                Floor(self._floor().cluster_id).check(news.header)
                yield news
        except Malformed as error:
            raise Failed(str(error)) from error
        finally:
            stream.close()

    async def _unless_silent(self, waiting: Coroutine[None, None, T]) -> T:
        try:
            ends_at_s = asyncio.get_running_loop().time() + self._silence_s
            async with self._gateway.until(ends_at_s):
                return await waiting
        except TimeoutError as error:
            raise Failed(f"not a sign of life for {self._silence_s} s") from error

    async def _requests(self, prefix: str, from_revision: int) -> AsyncIterator[bytes]:
        """What goes up: the wish, then a question for progress now and then."""
        yield json.dumps(watch_body(prefix, from_revision)).encode() + b"\n"
        while True:
            await asyncio.sleep(self._silence_s / 3)
            yield b'{"progress_request":{}}\n'
