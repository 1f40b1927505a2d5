"""From the store to the data path: what the cluster agreed on, as soon as it is agreed on.

A watch wakes, a linearizable read tells: as in the agent.  While the store does not answer, the
data path keeps what it was told last; a server that is gone is noticed on its own socket.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from flightmode.errors import StoreError
from flightmode.model.policy import Policy
from flightmode.proxy.news import News, Outlook, catch_up, news_of
from flightmode.store import keys
from flightmode.store.port import Store
from flightmode.store.tracker import Tracker

_log = structlog.get_logger("proxy.watching")

LOOK_EVERY_S = 1.0
"""Without a wake-up: a silent leader is noticed by time alone."""
_RELISTEN_S = 0.2


@dataclass
class Watcher:
    """Reads the store whenever something changed, and tells the data path.

    `now_s`: CLOCK_BOOTTIME in seconds.
    """

    store: Store
    cluster: str
    policy: Policy
    now_s: Callable[[], float]
    tell: Callable[[News], None]
    news: News | None = None
    """What was told last."""
    _caught_up_s: dict[str, float] = field(default_factory=dict)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._tracker = Tracker(self.store, self.cluster, self.now_s)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            while True:
                self._woken.clear()
                await self.look()
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._woken.wait()
                except TimeoutError:
                    continue

    def wake(self) -> None:
        """Look again at once."""
        self._woken.set()

    async def look(self) -> None:
        """One read of the store, and what follows from it.  Never raises for the store."""
        reached = self._tracker.view.reachable
        view = await self._tracker.read()
        if view.reachable != reached:
            _log.info("the store answers" if view.reachable else "the store does not answer")
        outlook = Outlook(self.now_s(), self.policy, view)
        if view.reachable:
            self._caught_up_s = catch_up(self._caught_up_s, outlook)
        news = news_of(outlook, self._tracker.revision, self._caught_up_s)
        if news is not None:
            self._say(news)

    def _say(self, news: News) -> None:
        before, self.news = self.news, news
        self.tell(news)
        if before is None or (before.term, before.serving) != (news.term, news.serving):
            _log.info(
                "clients are held" if news.serving is None else "clients go to the primary",
                primary=news.serving,
                term=news.term,
                why=news.reason,
            )

    async def _listen(self) -> None:
        prefix = keys.prefix(self.cluster)
        while True:
            try:
                if self._tracker.revision:
                    async for _ in self.store.watch(prefix, self._tracker.revision + 1):
                        self._woken.set()
            except StoreError as failure:
                _log.info("watch ended", why=str(failure))
            await asyncio.sleep(_RELISTEN_S)
