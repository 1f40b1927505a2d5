"""Reads from standbys, as docs/how-to/read-from-standbys.md says: two real servers, and news of
them that the test makes.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from proxy_bed import HOST, Server, eventually, room
from proxy_peers import Flightmode, Front
from psycopg import errors

pytestmark = pytest.mark.integration


@dataclass
class Pair:
    """`ams` is the primary and `fra` its standby; the proxy hears of them what the test says."""

    proxy: Flightmode

    def connect(self, *words: str) -> psycopg.Connection[tuple[Any, ...]]:
        options = " ".join(f"-c flightmode.{word}" for word in words)
        return psycopg.connect(
            host=HOST,
            port=self.proxy.port,
            user="postgres",
            dbname="postgres",
            options=options,
            autocommit=True,
            connect_timeout=10,
        )

    def news(self, primary: str | None, **lag_s: float) -> None:
        """`lag_s`: of each standby that there is."""
        self.proxy.revision += 1
        standbys = [
            {"node": node, "lag_bytes": 0, "lag_s": lag, "replayed": "0/0"}
            for node, lag in lag_s.items()
        ]
        news = {"term": self.proxy.term, "revision": self.proxy.revision, "primary": primary}
        assert self.proxy.process is not None
        assert self.proxy.process.stdin is not None
        self.proxy.process.stdin.write(json.dumps(news | {"standbys": standbys}).encode() + b"\n")
        self.proxy.process.stdin.flush()


@pytest.fixture(scope="module")
def made() -> Iterator[Pair]:
    with room("fm-reads-") as base, ExitStack() as stack:
        ams, fra = Server(base, "ams"), Server(base, "fra")
        for server in (ams, fra):
            stack.callback(server.kill)
        ams.create()
        ams.start()
        ams.sql("CREATE TABLE told (word text)")
        fra.copy(ams)
        fra.start()
        front = Front(base, {"ams": ams.port, "fra": fra.port}, "ams", secrets={"postgres": "any"})
        proxy = Flightmode(front, times={"hold_for_s": 1.0, "query_wait_s": 0})
        stack.callback(proxy.stop)
        proxy.start()
        yield Pair(proxy)


@pytest.fixture
def pair(made: Pair) -> Pair:
    """The standby is up to date when a test begins."""
    made.proxy.term += 1
    made.news("ams", fra=0.0)
    with made.connect("target=standby") as client:
        eventually("the standby serves", lambda: is_at_standby(client))
    return made


def is_at_standby(client: psycopg.Connection[tuple[Any, ...]]) -> bool:
    row = client.execute("SELECT pg_is_in_recovery()").fetchone()
    assert row is not None
    return bool(row[0])


def read_until_refused(client: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Until the news are there it is still answered."""
    eventually("it is at the primary, which nobody is", lambda: not is_at_standby(client))


def test_who_asks_for_a_standby_reads_there_and_everybody_else_at_the_primary(pair: Pair):
    with pair.connect("target=standby") as reader, pair.connect() as writer:
        assert [is_at_standby(reader) for _ in range(5)] == [True] * 5
        assert [is_at_standby(writer) for _ in range(5)] == [False] * 5
        with pytest.raises(errors.ReadOnlySqlTransaction):
            reader.execute("INSERT INTO told VALUES ('at a standby')")
        writer.execute("INSERT INTO told VALUES ('at the primary')")


def test_data_older_than_asked_for_are_read_at_the_primary(pair: Pair):
    with (
        pair.connect("target=standby") as usual,
        pair.connect("target=standby", "max_lag_s=60") as patient,
    ):
        pair.news("ams", fra=30.0)
        eventually("ten seconds is the bound", lambda: not is_at_standby(usual))
        assert is_at_standby(patient)
        pair.news("ams", fra=1.0)
        eventually("it is back at the standby", lambda: is_at_standby(usual))


def test_without_a_standby_the_primary_serves(pair: Pair):
    with pair.connect("target=standby") as reader:
        pair.news("ams")
        eventually("there is none", lambda: not is_at_standby(reader))


def test_old_data_are_given_without_a_primary_to_who_takes_them_and_are_named(pair: Pair):
    with (
        pair.connect("target=standby", "stale_ok=on") as takes,
        pair.connect("target=standby") as other,
    ):
        said: list[str] = []
        takes.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        pair.news(None, fra=42.0)
        with pytest.raises(errors.CannotConnectNow):
            read_until_refused(other)
        assert is_at_standby(takes)
        assert said == ["there is no primary: the data are 42.0 s old"]
        pair.news("ams", fra=0.0)
        eventually("it is served as before", lambda: is_at_standby(other))
