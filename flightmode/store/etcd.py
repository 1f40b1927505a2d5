"""The store on etcd: calls with a deadline, sorted into done, *lost* and *unknown*.

Why our own client: field experience says that the ready ones for asyncio neither
bound a call nor leave a frozen member.  The rules (S1):

- A call ends by its deadline, whatever the members do.
- A read may be asked of several members: of one more after a while or at a
  failure.  It is linearizable, so whichever answers first is right.
- A write is sent once.  Another member is tried only while no connection was
  made, so no byte has left.
- Only a proof that a comparison failed counts as *lost*; all else is unknown.
- An answer from another cluster, or older than what was known when the request
  left, is no answer.

The files: `wire` (JSON), `gateway` (one exchange), `endpoints` (whom to ask),
`calls` (deadlines), `etcd_watch` (streams), `etcd_members` (etcd's own members).
"""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

from flightmode.store import wire
from flightmode.store.calls import Call, Calls
from flightmode.store.endpoints import Endpoints
from flightmode.store.etcd_members import EtcdMembers
from flightmode.store.etcd_watch import Watch
from flightmode.store.gateway import Gateway
from flightmode.store.port import Change, Compare, Op, Snapshot, Txn, check_txn

PROBE_S: Final = 10.0
"""How often a read is also sent to the preferred member while another one is the best."""


class EtcdStore:
    """A client of one etcd cluster; a `Store`.

    `endpoints`: "https://host:port" of each member, the preferred one (usually on this host)
    first.  Addresses rather than names: a resolver has no deadline.
    `tls`: with our certificate and the cluster's CA; None only for tests on loopback.
    `clock`: seconds on CLOCK_BOOTTIME.
    `deadline_s`: for each whole call; below a quarter of the leader's ttl.
    `silence_s`: when a watch on which nothing comes at all moves to another member.
    """

    def __init__(
        self,
        endpoints: tuple[str, ...],
        tls: ssl.SSLContext | None,
        *,
        clock: Callable[[], float],
        deadline_s: float = 1.0,
        silence_s: float = 3.0,
    ) -> None:
        self._clock = clock
        self._silence_s = silence_s
        self._gateway = Gateway(tls)
        self._endpoints = Endpoints(tuple(url.rstrip("/") for url in endpoints), PROBE_S)
        self._calls = Calls(self._gateway, self._endpoints, clock, deadline_s)
        self.members = EtcdMembers(self._calls, self._endpoints.urls)

    async def read(self, prefix: str) -> Snapshot:
        return await self._calls.ask(Call("/v3/kv/range", wire.range_body(prefix), wire.read_range))

    async def commit(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> Txn:
        check_txn(compares, ops)
        return await self._calls.send(
            Call(
                "/v3/kv/txn",
                wire.txn_body(compares, ops),
                lambda answer: wire.read_txn(answer, compares, ops),
            )
        )

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[Change, ...]]:
        if from_revision < 1:
            raise ValueError("a watch starts at revision 1 or later")
        watch = Watch(
            self._gateway,
            self._endpoints,
            clock=self._clock,
            floor=lambda: self._calls.floor,
            silence_s=self._silence_s,
        )
        async with aclosing(watch.run(prefix, from_revision)) as stream:
            async for changes in stream:
                yield changes

    async def close(self) -> None:
        await self._gateway.close()
