"""Heartbeats over UDP and TCP: sent five times a second to every other node.

One port carries both.  On TCP the sender connects, and a connection that stands still is
given up within a second: it must not deliver old news after a partition.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import structlog

from flightmode.model.heartbeat import Listening
from flightmode.model.member import Node, NodeKind
from flightmode.pulse.datagram import MAX_BYTES, Beat, Gate, decode, encode
from flightmode.pulse.ears import Channel, Ears
from flightmode.pulse.port import Leases
from flightmode.pulse.promise import Promises

_log = structlog.get_logger("pulse")

BEAT_S: Final = 0.2
TICK_S: Final = 0.1
_AGAIN_S: Final = 0.2
_OPEN_AGAIN_S: Final = 5.0
_STUCK_S: Final = 1.0
_SILENT_S: Final = 5.0
_CONNECTIONS: Final = 32
_RESOLVE_S: Final = 30.0
_UDP: Final = (Channel.AGENT_UDP, Channel.FENCE)
_TCP: Final = (Channel.AGENT_TCP,)

Address = tuple[str, int]


class NetworkPulse:
    """The real one."""

    def __init__(
        self, me: Node, nodes: tuple[Node, ...], key: bytes, now_s: Callable[[], float]
    ) -> None:
        """`key`: the cluster's; `now_s`: CLOCK_BOOTTIME in seconds."""
        self._me = me
        self._peers = tuple(node for node in nodes if node.name != me.name)
        self._key = key
        self._now_s = now_s
        self._started_s = now_s()
        self._sequence = 0
        databases = {node.name for node in self._peers if node.kind is NodeKind.DATABASE}
        self._ears = Ears(databases)
        self._gate = Gate(databases)
        self._promises = Promises(me.name, key, self._gate, self._started_s)
        self._leases: Leases | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._addresses: Mapping[str, Address] = {}
        self._connections = 0
        self._deaf: str | None = "heartbeats are not heard yet"

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in self._addresses.values()
        )

    def listening(self) -> Listening:
        return self._ears.listening(self._now_s(), self._deaf)

    async def run(self, leases: Leases) -> None:
        self._leases = leases
        while True:
            try:
                await self._once()
            except* OSError as failures:
                failure = failures.exceptions[0]
                self._deaf = f"heartbeats can't be heard: {failure}"
                _log.warning("no heartbeats", why=str(failure))
            except* Exception as failures:
                # A bug in what only informs must not end the agent, whose renewals keep a primary.
                self._deaf = f"FM699: heartbeats can't be heard: {failures.exceptions[0]!r}"
                _log.exception("no heartbeats, for a reason nobody foresaw")
            finally:
                self._ears.stopped()
            await asyncio.sleep(_OPEN_AGAIN_S)

    async def _once(self) -> None:
        """Until cancelled, or the port is lost."""
        loop = asyncio.get_running_loop()
        where = (self._me.host, self._me.heartbeat_port)
        udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=where)
        self._udp = udp
        try:
            server = await asyncio.start_server(self._serve, *where, limit=MAX_BYTES)
            async with server, asyncio.TaskGroup() as tasks:
                self._deaf = None
                tasks.create_task(self._tick())
                tasks.create_task(self._resolve())
                if self._me.kind is NodeKind.DATABASE:
                    tasks.create_task(self._send(udp))
                    for peer in self._peers:
                        tasks.create_task(self._speak_to(peer))
        finally:
            self._udp = None
            udp.close()

    async def _tick(self) -> None:
        while True:
            self._ears.tick(self._now_s())
            await asyncio.sleep(TICK_S)

    # ------------------------------------------------------------------ sending

    async def _resolve(self) -> None:
        """Names become addresses beforehand: nobody waits for DNS in a bad moment."""
        while True:
            found: dict[str, Address] = dict(self._addresses)
            for peer in self._peers:
                with suppress(OSError):
                    found[peer.name] = await _address(peer)
            self._addresses = found
            whole = len(found) == len(self._peers)
            await asyncio.sleep(_RESOLVE_S if whole else 1.0)

    def _beat(self, channel: Channel) -> bytes:
        self._sequence += 1
        return encode(Beat(self._me.name, channel, self._started_s, self._sequence), self._key)

    async def _send(self, udp: asyncio.DatagramTransport) -> None:
        while True:
            for address in self._addresses.values():
                udp.sendto(self._beat(Channel.AGENT_UDP), address)
            self._ask(udp)
            await asyncio.sleep(BEAT_S)

    def _ask(self, udp: asyncio.DatagramTransport) -> None:
        assert self._leases is not None
        for node, question in self._promises.questions(self._leases, self._now_s()).items():
            if (address := self._addresses.get(node)) is not None:
                udp.sendto(question, address)

    async def _speak_to(self, peer: Node) -> None:
        while True:
            address = self._addresses.get(peer.name)
            if address is not None:
                with suppress(OSError, TimeoutError):
                    await self._speak(address)
            await asyncio.sleep(_AGAIN_S)

    async def _speak(self, address: Address) -> None:
        """Over one connection, until it breaks or stands still."""
        async with asyncio.timeout(_STUCK_S):
            _, writer = await asyncio.open_connection(*address)
        try:
            _hurry(writer)
            while True:
                writer.write(self._beat(Channel.AGENT_TCP) + b"\n")
                async with asyncio.timeout(_STUCK_S):
                    await writer.drain()
                await asyncio.sleep(BEAT_S)
        finally:
            # Not closed politely: that would wait for what can't be delivered.
            writer.transport.abort()

    # ------------------------------------------------------------------ hearing

    def received(self, datagram: bytes, channels: tuple[Channel, ...]) -> bool:
        """Take it in; False: it is nothing of ours."""
        beat = decode(datagram, self._key)
        if beat is None or beat.channel not in channels:
            return False
        if self._gate.admits(beat.node, beat.channel.value, beat.started_s, beat.sequence):
            self._ears.hear(beat.node, beat.channel, self._now_s())
        return True

    def received_datagram(self, datagram: bytes) -> None:
        """A heartbeat, or a word about a lease; of anybody."""
        if self.received(datagram, _UDP) or self._leases is None:
            return
        answer = self._promises.take(datagram, self._leases)
        address = None if answer is None else self._addresses.get(answer[0])
        if answer is not None and address is not None and self._udp is not None:
            self._udp.sendto(answer[1], address)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of anybody; it is closed at the first word that is not signed."""
        self._connections += 1
        try:
            if self._connections > _CONNECTIONS:
                return
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
                while await self._hear(reader):
                    pass
        finally:
            self._connections -= 1
            writer.transport.abort()

    async def _hear(self, reader: asyncio.StreamReader) -> bool:
        async with asyncio.timeout(_SILENT_S):
            body = await reader.readuntil(b"\n")
            tag = await reader.readuntil(b"\n")
        return self.received(body + tag, _TCP)


class _Datagrams(asyncio.DatagramProtocol):
    """What arrives over UDP."""

    def __init__(self, pulse: NetworkPulse) -> None:
        self._pulse = pulse

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._pulse.received_datagram(data)

    def error_received(self, exc: Exception) -> None:
        """An unreachable neighbour is no news here: its silence is."""


async def _address(node: Node) -> Address:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(node.host, node.heartbeat_port, type=socket.SOCK_DGRAM)
    host, port = found[0][4][:2]
    return str(host), int(port)


def _hurry(writer: asyncio.StreamWriter) -> None:
    """What can't be delivered within a second is not worth delivering (tcp(7))."""
    link: socket.socket = writer.get_extra_info("socket")
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_STUCK_S * 1000))
