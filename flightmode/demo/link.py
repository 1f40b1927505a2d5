"""One connection of a client, on which no wait is without an end.

psycopg answers the cancellation of a query by asking the server to cancel it, and waits for that.
To a dead host that takes seconds, and on a COMMIT that waits for its standby it changes what
happens.  So a deadline here shuts the socket, as the death of the client would: libpq sees the
end of the stream, and the server goes on with what it was told.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.errors import Diagnostic
from psycopg.pq import TransactionStatus


class Link:
    """A connection to one node, in autocommit mode; several statements may go in one round."""

    def __init__(self, node: str, connection: AsyncConnection[tuple[object, ...]]) -> None:
        self.node = node
        self.warned = False
        """Whether the server sent a warning since this was last set to False."""
        self._connection = connection
        connection.add_notice_handler(self._heed)

    @classmethod
    async def open(cls, node: str, conninfo: str, *, deadline_s: float) -> Self:
        """Connect within `deadline_s`; raises psycopg.OperationalError or TimeoutError."""
        async with asyncio.timeout(deadline_s):
            connection = await AsyncConnection.connect(
                make_conninfo(conninfo, application_name="flightmode-ledger"),
                autocommit=True,
                cursor_factory=AsyncClientCursor,
            )
        return cls(node, connection)

    async def execute(
        self, query: str, values: Sequence[object] = (), *, deadline_s: float
    ) -> AsyncClientCursor[tuple[object, ...]]:
        """Run statements; raises psycopg.Error, also when the deadline shut the connection."""
        alarm = asyncio.get_running_loop().call_later(deadline_s, self.abort)
        try:
            cursor = AsyncClientCursor(self._connection)
            await cursor.execute(query.encode(), values or None)
            return cursor
        finally:
            alarm.cancel()

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._connection.closed or self._connection.broken

    @property
    def in_transaction(self) -> bool:
        """Whether the server is in a transaction, failed or not."""
        return self._connection.info.transaction_status is not TransactionStatus.IDLE

    def abort(self) -> None:
        """End the connection now, whatever waits on it.  May be repeated."""
        # An error here says that it is closed already, and that nothing waits on it.
        with suppress(psycopg.OperationalError, OSError):
            wire = socket.socket(fileno=os.dup(self._connection.fileno()))
            with wire:
                wire.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Say goodbye to the server, if it is still there."""
        await self._connection.close()

    def _heed(self, notice: Diagnostic) -> None:
        # Severity in English whatever lc_messages says: since PostgreSQL 9.6, field V.
        if notice.severity_nonlocalized == "WARNING":
            self.warned = True
