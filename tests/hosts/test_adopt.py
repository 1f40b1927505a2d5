"""A single server with somebody's rows becomes node one of a cluster, with one restart.

The commands are those of docs/how-to/adopt.md.
"""

import asyncio
import time
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.hosts.machines import Founder, founder, missing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.story,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

DATA = "/var/lib/postgresql/15/main"
PASSWORD = "of the shop"
LOOK_S = 0.1


def a_server_as_people_have_it(me: Founder) -> None:
    """Debian's own, with a role, rows, a rule of access and a setting."""
    me.hosts.ssh("ams", "apt-get update -q && apt-get install -q -y postgresql", within_s=300)
    home = "/etc/postgresql/15/main"
    rule = "host shop shop 198.18.0.0/15 scram-sha-256"
    me.hosts.ssh(
        "ams",
        f"echo '{rule}' >> {home}/pg_hba.conf && echo \"listen_addresses = '*'\" "
        f"> {home}/conf.d/shop.conf && echo 'work_mem = 7MB' >> {home}/conf.d/shop.conf "
        "&& systemctl restart postgresql",
    )
    psql = "cd /tmp && runuser -u postgres -- psql -q"
    me.hosts.ssh(
        "ams",
        f"""{psql} -c "CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'" """
        f"""-c "CREATE DATABASE shop OWNER shop" """,
    )
    with connected(me, "ams") as shop:
        shop.execute("CREATE TABLE orders AS SELECT generate_series(1, 1000) AS id")


def connected(me: Founder, name: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=me.hosts.machines[name].address,
        dbname="shop",
        user="shop",
        password=PASSWORD,
        autocommit=True,
        connect_timeout=2,
    )


@dataclass
class Customer:
    """Buys one thing after the other, at the first server, and keeps the receipts."""

    me: Founder
    bought: list[int] = field(default_factory=list)
    longest_s: float = 0.0
    leaving: bool = False

    def shops(self) -> None:
        last_s = time.monotonic()
        number = 10_000
        while not self.leaving:
            number += 1
            try:
                with connected(self.me, "ams") as shop:
                    shop.execute("INSERT INTO orders VALUES (%s)", (number,))
            except psycopg.OperationalError:
                time.sleep(LOOK_S)
                continue
            self.bought.append(number)
            self.longest_s = max(self.longest_s, time.monotonic() - last_s)
            last_s = time.monotonic()
            time.sleep(LOOK_S)


def orders(me: Founder, name: str) -> set[int]:
    with connected(me, name) as shop:
        return {int(str(row[0])) for row in shop.execute("SELECT id FROM orders").fetchall()}


async def test_a_server_with_rows_becomes_a_cluster_with_one_restart() -> None:
    with founder() as me:
        a_server_as_people_have_it(me)
        address = me.hosts.machines["ams"].address
        refused = me.types(
            "init",
            str(me.home / "x"),
            "--ssh-key",
            str(me.hosts.key),
            "--adopt",
            f"{address}:/var/lib/postgresql/15/other",
        )
        assert refused.status == 74, refused.out
        assert f"error FM202: {address}: /var/lib/postgresql/15/other/PG_VERSION" in refused.out
        customer = Customer(me)
        shopping = asyncio.create_task(asyncio.to_thread(customer.shops))
        try:
            await asyncio.to_thread(me.begins, "--adopt", f"{address}:{DATA}")
            me.edits("#clients = []", 'clients = ["198.18.0.0/15"]')
            made = await asyncio.to_thread(me.does, "provision")
            assert "the cluster is whole" in made.out
            assert len(customer.bought) > 0
            before = len(customer.bought)
            until_s = time.monotonic() + 30
            while len(customer.bought) < before + 5:
                assert time.monotonic() < until_s, "the customer can buy nothing any more"
                await asyncio.sleep(LOOK_S)
        finally:
            customer.leaving = True
            await shopping
        print(
            f"{len(customer.bought)} orders; nothing could be bought for {customer.longest_s:.1f} s"
        )
        assert me.primary == "ams"
        with connected(me, "ams") as shop:
            assert shop.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert customer.longest_s < 15
        assert "nothing to do" in me.does("provision").out

        await asyncio.to_thread(me.hosts.machines["ams"].kill)
        me.until(lambda status: status["writes"] == "fra", "fra to be the primary", 60)
        assert orders(me, "fra") == {*range(1, 1001), *customer.bought}
        await asyncio.to_thread(me.hosts.boot, "ams")
        await asyncio.to_thread(me.until_whole)
        units = me.hosts.ssh("ams", "systemctl is-active postgresql@15-main || true")
        assert units.strip() == "inactive"
