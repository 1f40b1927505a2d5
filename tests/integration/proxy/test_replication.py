"""Who replicates has no pool to wait in, and is held all the same while there is no primary."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from proxy_bed import eventually

from tests.integration.proxy.stage import Console, Stage, staged


@contextmanager
def without_primary(*, hold_for_s: float = 30.0) -> Iterator[tuple[Stage, Console]]:
    with staged(settings="wal_level = logical\n", times={"hold_for_s": hold_for_s}) as stage:
        stage.proxy.no_primary()
        with stage.console() as console:
            eventually(
                "it knows", lambda: console.one("SHOW TOPOLOGY", node="ams")["role"] != "primary"
            )
            yield stage, console


def comes(
    beside: ThreadPoolExecutor, stage: Stage, console: Console
) -> Future[psycopg.Connection[Any]]:
    coming = beside.submit(stage.connect, replication="database")
    eventually("it is listed", lambda: len(console("SHOW CLIENTS")) == 2)
    return coming


def test_who_comes_to_replicate_is_held_until_there_is_a_primary():
    with without_primary() as (stage, console), ThreadPoolExecutor(1) as beside:
        coming = comes(beside, stage, console)
        assert not coming.done()
        stage.proxy.primary("ams")
        with coming.result(timeout=10) as replica:
            assert replica.execute("IDENTIFY_SYSTEM").fetchone() is not None


def test_who_comes_to_replicate_is_told_when_no_primary_comes():
    with (
        without_primary(hold_for_s=0.2) as (stage, _),
        pytest.raises(psycopg.OperationalError, match="no primary to replicate from"),
    ):
        stage.connect(replication="database")


def test_who_waits_to_replicate_is_sent_away():
    with without_primary() as (stage, console), ThreadPoolExecutor(1) as beside:
        coming = comes(beside, stage, console)
        row = console.one("SHOW CLIENTS", database="postgres")
        console(f"KILL_CLIENT {row['id']}")
        with pytest.raises(psycopg.OperationalError, match="administrator"):
            coming.result(timeout=10)
