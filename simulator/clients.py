"""Clients that write rows, each row once, and remember what they were told.

Some live on a host of their own and look for the primary; one lives on each database
host and only ever writes to the server beside it, also when its host is cut off.
"""

from collections.abc import Callable, Sequence
from itertools import count
from random import Random

from simulator.history import Acknowledged, History, Seen
from simulator.network import Network
from simulator.postgres import SimServer

_PATIENCE_S = 2.0


class Client:
    """One client: a row at a time."""

    def __init__(
        self,
        host: str,
        servers: Sequence[SimServer],
        network: Network,
        history: History,
        dice: Random,
        rows: "count[int]",
    ) -> None:
        self._host = network.hosts[host]
        self._servers = servers
        self._network = network
        self._history = history
        self._dice = dice
        self._rows = rows
        self._at = 0
        self._pending: int | None = None
        self.acknowledged: Callable[[str], None] = lambda _: None
        self._later(self._dice.random(), self._write)

    def _later(self, delay_s: float, act: Callable[..., object], *args: object) -> None:
        self._host.loop.after(delay_s, act, *args)

    def _write(self) -> None:
        if not self._host.up or self._host.frozen:
            self._later(0.5, self._write)
            return
        row = self._pending = next(self._rows)
        server = self._servers[self._at]
        self._send(server, "commit", row)
        if self._dice.random() < 0.3:
            self._send(server, "read", None)
        self._later(_PATIENCE_S, self._give_up, row)

    def _send(self, server: SimServer, what: str, row: int | None) -> None:
        self._network.send(self._host.name, server.name, self._arrive, server, what, row)

    def _arrive(self, server: SimServer, what: str, row: int | None) -> None:
        def answer(outcome: str, about: int | None) -> None:
            self._network.send(server.name, self._host.name, self._told, server, outcome, about)

        if what == "read":
            server.sessions.read(answer)
        elif row is not None:
            server.sessions.commit(row, answer)

    def _told(self, server: SimServer, outcome: str, row: int | None) -> None:
        assert row is not None
        at_s = self._host.loop.time()
        if outcome == "seen":
            self._history.add(Seen(at_s, server.name, row))
            return
        if outcome == "acknowledged":
            # Also an answer that nobody waits for any more was given.
            self._history.add(Acknowledged(at_s, server.name, row))
            self.acknowledged(server.name)
        if row != self._pending:
            return
        self._pending = None
        if outcome != "acknowledged":
            self._elsewhere()
        # Who lives beside its server has the more to lose by it.
        most_s = 0.8 if len(self._servers) > 1 else 0.2
        self._later(self._dice.uniform(0.02, most_s), self._write)

    def _give_up(self, row: int) -> None:
        if self._pending == row:
            self._pending = None
            self._elsewhere()
            self._write()

    def _elsewhere(self) -> None:
        self._at = (self._at + 1) % len(self._servers)
