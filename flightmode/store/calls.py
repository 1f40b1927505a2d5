"""Calls with a deadline to some member of an etcd cluster: `ask` (reads) and `send` (writes)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from flightmode.errors import StoreRefused, StoreUnknown
from flightmode.store.endpoints import Endpoints, Floor
from flightmode.store.gateway import Failed, Gateway
from flightmode.store.wire import Json, Malformed, read_header

T = TypeVar("T")

HEDGE_S: Final = 0.2
"""After how long without an answer a read is asked of one more member."""
PAUSE_S: Final = 0.05
"""Before a member that has just failed is asked again, within the same read."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One unary RPC; `parse` raises Malformed for an answer that can't be."""

    path: str
    body: Json
    parse: Callable[[Json], T]
    local: bool = False
    """The member answers from what it knows itself, so its revision may lag behind."""


@dataclass(slots=True)
class _Race(Generic[T]):
    """The attempts of one read that are under way, and how those that ended did."""

    ends_at_s: float
    running: dict[str, asyncio.Task[T | Failed]] = field(default_factory=dict)
    failures: dict[str, Failed] = field(default_factory=dict)

    def left_s(self) -> float:
        return max(self.ends_at_s - asyncio.get_running_loop().time(), 0.0)

    async def lap(self, wait_s: float) -> tuple[str, T] | None:
        """Wait until an attempt ends, `wait_s` at most; the winner if there is one now."""
        await asyncio.wait(
            self.running.values(),
            timeout=min(wait_s, self.left_s()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        for url, task in list(self.running.items()):
            if not task.done():
                continue
            del self.running[url]
            answer = task.result()
            if not isinstance(answer, Failed):
                return url, answer
            self.failures[url] = answer
        return None

    async def stop(self) -> None:
        """Cancel the losers."""
        for task in self.running.values():
            task.cancel()
        await asyncio.gather(*self.running.values(), return_exceptions=True)


class Calls:
    """Unary calls.  Each ends by its deadline: with an answer that holds, or StoreUnknown."""

    def __init__(
        self,
        gateway: Gateway,
        endpoints: Endpoints,
        clock: Callable[[], float],
        deadline_s: float,
    ) -> None:
        self._gateway = gateway
        self._endpoints = endpoints
        self._clock = clock
        self._deadline_s = deadline_s
        self.floor = Floor()

    async def send(self, call: Call[T]) -> T:
        """A write: another member is tried only while no byte of it has left.

        Raises StoreUnknown; then it may have happened, or may still happen.
        """
        race = _Race[T](self._ends_at_s())
        urls = self._endpoints.order()
        for position, url in enumerate(urls):
            connect_s = race.left_s() / (len(urls) - position)
            answer = await self._attempt(url, call, race.ends_at_s, connect_s)
            if not isinstance(answer, Failed):
                self._endpoints.prefer(url, self._clock())
                return answer
            race.failures[url] = answer
            if answer.sent:
                break
        raise self._unknown(race.failures)

    async def ask(self, call: Call[T]) -> T:
        """A linearizable read: asked of more and more members until one answers.

        Raises StoreUnknown.
        """
        race = _Race[T](self._ends_at_s())
        try:
            for url, alone_s in self._endpoints.turns(self._clock(), HEDGE_S):
                if not race.left_s() or self._hopeless(race.failures):
                    break
                if url in race.failures and not race.running:
                    await asyncio.sleep(min(PAUSE_S, race.left_s()))
                if url not in race.running:
                    attempt = self._attempt(url, call, race.ends_at_s, race.left_s())
                    race.running[url] = asyncio.create_task(attempt)
                won = await race.lap(alone_s)
                if won is not None:
                    self._endpoints.prefer(won[0], self._clock())
                    return won[1]
        finally:
            await race.stop()
        raise self._unknown(race.failures)

    async def ask_one(self, url: str, call: Call[T]) -> T:
        """A call to this member and no other.  Raises StoreUnknown."""
        answer = await self._attempt(url, call, self._ends_at_s(), self._deadline_s)
        if isinstance(answer, Failed):
            raise self._unknown({url: answer})
        return answer

    async def _attempt(
        self, url: str, call: Call[T], ends_at_s: float, connect_s: float
    ) -> T | Failed:
        """One exchange; whatever it shows of the member's health is noted."""
        floor = self.floor
        try:
            async with self._gateway.until(ends_at_s):
                answer = await self._gateway.post(url, call.path, call.body, connect_s)
            self._check(call, answer, floor)
            parsed = call.parse(answer)
        except TimeoutError:
            failure = Failed("no answer in time")
        except Malformed as error:
            failure = Failed(str(error))
        except Failed as error:
            failure = error
        else:
            return parsed
        self._endpoints.failed(url, self._clock())
        return failure

    def _check(self, call: Call[T], answer: Json, floor: Floor) -> None:
        """Raise Malformed for an answer from another cluster or from the past; raise the floor."""
        if call.local and "header" not in answer:
            return  # The answer to MoveLeader has none before etcd 3.5.
        header = read_header(answer)
        if call.local:
            return Floor(floor.cluster_id).check(header)
        floor.check(header)
        self.floor = self.floor.raised(header)

    def _ends_at_s(self) -> float:
        return asyncio.get_running_loop().time() + self._deadline_s

    def _hopeless(self, failures: dict[str, Failed]) -> bool:
        """Whether asking once more can't help: we are closed, or nobody trusts us."""
        return self._gateway.closed.is_set() or (
            len(failures) == len(self._endpoints.urls)
            and all(failure.refused for failure in failures.values())
        )

    def _unknown(self, failures: dict[str, Failed]) -> StoreUnknown:
        """The error to raise, with what each member did."""
        told = "; ".join(f"{url}: {failure}" for url, failure in failures.items())
        if failures and all(failure.refused for failure in failures.values()):
            return StoreRefused(f"a certificate was not accepted ({told})")
        return StoreUnknown(f"no answer from etcd ({told or 'no member was reached in time'})")
