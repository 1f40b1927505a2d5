"""Heartbeats over real sockets: heard, missed, and not forged."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from flightmode.model.heartbeat import Heard
from flightmode.model.lease import Leased
from flightmode.model.member import Node, NodeKind
from flightmode.pulse.datagram import Beat, encode
from flightmode.pulse.ears import Channel
from flightmode.pulse.network import NetworkPulse
from tests.integration.fence_process import FenceProcess

KEY = b"0123456789abcdef0123"
SOON_S = 10.0


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def free_port() -> int:
    """Free for both protocols a moment ago."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", tcp.getsockname()[1]))
        return int(tcp.getsockname()[1])


@dataclass
class Leases:
    """A node that wishes, promises and takes what it is told to."""

    wishes: tuple[int, tuple[str, ...]] | None = None
    for_s: float | None = None
    taken: list[Leased] = field(default_factory=list)

    def wish(self) -> tuple[int, tuple[str, ...]] | None:
        return self.wishes

    def asked(self, node: str, term: int) -> float | None:
        return self.for_s if (node, term) == ("ams", 3) else None

    def granted(self, leased: Leased) -> None:
        self.taken.append(leased)


@pytest.fixture
def nodes() -> tuple[Node, ...]:
    kinds = {"ams": NodeKind.DATABASE, "fra": NodeKind.DATABASE, "wit": NodeKind.WITNESS}
    return tuple(
        Node(name, kind, "127.0.0.1", heartbeat_port=free_port()) for name, kind in kinds.items()
    )


@contextlib.asynccontextmanager
async def running(
    node: Node, nodes: tuple[Node, ...], key: bytes = KEY, leases: Leases | None = None
) -> AsyncIterator[NetworkPulse]:
    pulse = NetworkPulse(node, nodes, key, now_s)
    task = asyncio.create_task(pulse.run(leases or Leases()))
    try:
        yield pulse
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():  # noqa: ASYNC110 - a port says nothing by itself
            await asyncio.sleep(0.02)


def heard(pulse: NetworkPulse, name: str) -> Heard:
    found = pulse.listening().of(name)
    assert found is not None
    return found


def udp_and_tcp(pulse: NetworkPulse, name: str) -> bool:
    of = heard(pulse, name)
    return of.agent_udp_s is not None and of.agent_tcp_s is not None


async def test_agents_hear_each_other_on_both_ways(nodes: tuple[Node, ...]) -> None:
    ams, fra, wit = nodes
    async with running(ams, nodes) as a, running(fra, nodes) as f, running(wit, nodes) as w:
        await until(lambda: udp_and_tcp(a, "fra") and udp_and_tcp(f, "ams"))
        await until(lambda: udp_and_tcp(w, "ams") and udp_and_tcp(w, "fra"))
        assert a.listening().of("wit") is None, "a witness has nothing to say"
        assert a.listening().deaf is None


async def test_a_fence_is_heard_beside_its_agent(nodes: tuple[Node, ...], tmp_path: Path) -> None:
    fra, key = nodes[1], tmp_path / "heartbeat"
    key.write_bytes(KEY + b"\n")
    key.chmod(0o600)
    async with running(fra, nodes) as pulse:
        async with FenceProcess("--heartbeat-key", str(key)) as signed:
            await signed.client.send_heartbeats((f"127.0.0.1:{fra.heartbeat_port}",))
            await until(lambda: heard(pulse, "ams").fence_s is not None)
            first = heard(pulse, "ams").fence_s
            await until(lambda: heard(pulse, "ams").fence_s != first)
        assert heard(pulse, "ams").agent_udp_s is None


async def test_who_ends_falls_silent_and_who_returns_is_heard_again(
    nodes: tuple[Node, ...],
) -> None:
    ams, fra, _ = nodes
    async with running(fra, nodes) as listener:
        async with running(ams, nodes):
            await until(lambda: udp_and_tcp(listener, "ams"))
        ended_s = now_s()
        await until(lambda: now_s() - ended_s > 0.6)
        last = heard(listener, "ams")
        assert last.agent_udp_s is not None
        assert last.agent_tcp_s is not None
        assert max(last.agent_udp_s, last.agent_tcp_s) < ended_s + 0.3
        async with running(ams, nodes):
            await until(lambda: min(times(listener)) > ended_s + 0.6)


def times(pulse: NetworkPulse) -> tuple[float, float]:
    of = heard(pulse, "ams")
    assert of.agent_udp_s is not None
    assert of.agent_tcp_s is not None
    return of.agent_udp_s, of.agent_tcp_s


async def test_another_key_is_another_cluster(nodes: tuple[Node, ...]) -> None:
    ams, fra, wit = nodes
    async with (
        running(fra, nodes) as f,
        running(wit, nodes, b"x" * 20) as w,
        running(ams, nodes),
    ):
        await until(lambda: udp_and_tcp(f, "ams"))
        assert heard(w, "ams") == Heard("ams")


async def test_a_stranger_on_tcp_is_shown_the_door(nodes: tuple[Node, ...]) -> None:
    fra = nodes[1]
    async with running(fra, nodes) as pulse:
        await until(lambda: pulse.listening().deaf is None)
        where = ("127.0.0.1", fra.heartbeat_port)
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"x" * 5000, b"\n\n"):
            reader, writer = await asyncio.open_connection(*where)
            writer.write(said)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(SOON_S):
                    assert await reader.read() == b""
            writer.transport.abort()
        genuine = encode(Beat("ams", Channel.AGENT_TCP, 1.0, 1), KEY) + b"\n"
        _, writer = await asyncio.open_connection(*where)
        writer.write(genuine)
        await until(lambda: heard(pulse, "ams").agent_tcp_s is not None)
        writer.transport.abort()


async def test_strangers_can_not_take_all_connections_for_long(nodes: tuple[Node, ...]) -> None:
    ams, fra, _ = nodes
    async with running(fra, nodes) as pulse:
        await until(lambda: pulse.listening().deaf is None)
        links = [await asyncio.open_connection("127.0.0.1", fra.heartbeat_port) for _ in range(40)]
        async with running(ams, nodes):
            await until(lambda: udp_and_tcp(pulse, "ams"))
        for _, writer in links:
            writer.transport.abort()


async def test_a_port_that_is_taken_is_said_and_tried_again(nodes: tuple[Node, ...]) -> None:
    ams = nodes[0]
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", ams.heartbeat_port))
        async with running(ams, nodes) as pulse:
            await until(lambda: "can't be heard" in (pulse.listening().deaf or ""))
            assert pulse.listening().since_s is None
            taken.close()
            await until(lambda: pulse.listening().since_s is not None)


async def test_the_fence_is_told_numbers_and_not_names(nodes: tuple[Node, ...]) -> None:
    named = (nodes[0], replace(nodes[1], host="localhost"), nodes[2])
    async with running(named[0], named) as pulse:
        await until(lambda: len(pulse.targets) == 2)
        assert all(each.rpartition(":")[0] in ("127.0.0.1", "[::1]") for each in pulse.targets)


async def test_a_promise_is_asked_for_and_given_over_the_same_port(
    nodes: tuple[Node, ...],
) -> None:
    ams, fra, _ = nodes
    leader, standby = Leases(wishes=(3, ("fra",))), Leases(for_s=5.0)
    began_s = now_s()
    async with running(fra, nodes, leases=standby), running(ams, nodes, leases=leader):
        await until(lambda: len(leader.taken) >= 2)
    first, second, *_ = leader.taken
    assert (first.by, first.term, first.for_s) == ("fra", 3, 5.0)
    assert began_s <= first.sent_s < second.sent_s <= now_s()
    assert standby.taken == []


async def test_who_promises_nothing_is_not_believed_to(nodes: tuple[Node, ...]) -> None:
    ams, fra, _ = nodes
    leader = Leases(wishes=(4, ("fra",)))
    async with (
        running(fra, nodes, leases=Leases(for_s=5.0)) as f,
        running(ams, nodes, leases=leader),
    ):
        await until(lambda: udp_and_tcp(f, "ams"))
        asked_s = now_s()
        await until(lambda: now_s() > asked_s + 0.6)
    assert leader.taken == []
