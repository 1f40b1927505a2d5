"""A person's commands on a real cluster: etcd, PostgreSQL, fences and agents on loopback."""

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import pytest_asyncio

from flightmode.cli.options import place
from flightmode.demo.cluster import NODES, DemoCluster
from flightmode.demo.loopback import LoopbackLab
from flightmode.postgres.adopt import inspect
from tests.integration.live_cluster import until

BIN = Path("/usr/lib/postgresql/15/bin")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not BIN.exists() or shutil.which("etcd") is None,
        reason="PostgreSQL 15 and etcd are needed",
    ),
]


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Person:
    """Somebody with the operator's certificate and a shell."""

    cluster: DemoCluster
    lab: LoopbackLab
    toml: Path

    async def types(self, verb: str, *words: object) -> Ran:
        argv = [verb, *map(str, words)]
        if "replay" not in argv:
            argv += ["--config", str(self.toml)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flightmode.cli.main", *argv, stdout=-1, stderr=-1
        )
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def done(self, verb: str, *words: object) -> Ran:
        """The same, and it went well."""
        ran = await self.types(verb, *words)
        assert ran.status == 0, f"{verb}: {ran.out}{ran.err}"
        return ran


@pytest_asyncio.fixture
async def unborn() -> AsyncIterator[Person]:
    """Three nodes with their files, and nothing started."""
    async with LoopbackLab(NODES) as lab:
        cluster = DemoCluster(lab, BIN, timing={"stable_after_flap_s": 1.0})
        try:
            yield Person(cluster, lab, cluster.operator_toml())
        finally:
            await cluster.close()


@pytest_asyncio.fixture
async def person(unborn: Person) -> Person:
    await unborn.cluster.start()
    return unborn


async def test_every_verb_does_what_it_says(person: Person) -> None:
    status = (await person.done("status", "--json")).json
    assert (status["writes"], status["reads"]) == ("ams", ["fra"])

    await person.done("pause", "--for", "10m")
    refused = await person.types("switchover")
    assert (refused.status, "the cluster is paused" in refused.err) == (1, True)
    await person.done("resume")

    switched = await person.done("switchover", "--to", "fra")
    assert "fra leads term 2" in switched.out
    assert " s  " in switched.err, "it tells what happens"
    await person.cluster.until(lambda picture: picture.whole, "ams to follow")
    status = (await person.done("status", "--json")).json
    assert (status["writes"], status["state"]["sync"]) == ("fra", ["ams"])
    assert status["state"]["reason"] == "switchover asked for by operator"

    before = person.cluster.postmaster("ams")
    await person.done("restart", "ams")
    assert person.cluster.postmaster("ams") != before
    await person.done("reload")

    await person.cluster.until(lambda picture: picture.whole, "ams to be in sync again")
    await person.done("reinit", "ams", "--yes")
    kept = [each.name for each in (person.cluster.directory / "ams").iterdir()]
    assert len([name for name in kept if name.startswith("data")]) == 2, "the old one is kept"
    await person.cluster.until(lambda picture: picture.whole, "ams to be in sync again")
    refused = await person.types("failover", "--accept-data-loss", "--yes")
    assert (refused.status, "error FM524" in refused.err) == (1, True)

    logged = (await person.done("logs", "--postgres", "--node", "ams", "--json")).json
    assert Path(logged["file"]) == person.cluster.directory / "ams" / "state" / "postgres.log"
    assert any("database system is ready" in line for line in logged["lines"])

    why = (await person.done("why", "--node", "fra", "--count", "500", "--json")).json
    assert "leading: promote" in {each["rule"] for each in why}
    for name in NODES:
        journal = person.cluster.directory / name / "state" / "journal.jsonl"
        assert "0 would be different today" in (await person.done("replay", journal)).out


async def test_a_person_may_accept_a_loss_that_the_machine_must_not(person: Person) -> None:
    await person.lab.power_loss("fra")
    await person.cluster.until(lambda picture: picture.state.mode == "solo", "ams to go solo")
    await person.lab.power_loss("ams")
    await person.cluster.power_on("fra")

    async def status() -> Any:
        ran = await person.types("status", "--json")
        return ran.json if ran.out else None

    async def silent(name: str) -> bool:
        told = await status()
        return told is not None and not any(
            each["heard"] for each in told["nodes"] if each["name"] == name
        )

    # It spoke a moment ago: as long as it may be alive, this is refused, rightly.
    await until(lambda: silent("ams"), "ams not to be heard any more")
    refused = await person.types("failover")
    assert (refused.status, "--accept-data-loss" in refused.err) == (64, True)
    forced = await person.done("failover", "--accept-data-loss", "--yes", "--to", "fra")
    assert "promoting fra: what it may lack" in forced.err
    assert (await status())["writes"] == "fra"
    told = (await person.done("why", "--node", "fra", "--json")).json
    assert "operator accepted a loss of data" in json.dumps(told)


def as_postgres(program: str, *words: object) -> str:
    user = pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None
    argv = [str(BIN / program), *map(str, words)]
    done = subprocess.run(argv, user=user, cwd="/", check=True, capture_output=True, timeout=60)
    return done.stdout.decode()


async def test_a_database_that_others_made_is_taken_over_with_its_rows(unborn: Person) -> None:
    home = unborn.cluster.directory / "ams"
    data, sockets = home / "data", home / "run"
    as_postgres("initdb", "--pgdata", data, "--username=postgres", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories='{sockets}'"
    as_postgres("pg_ctl", "start", "--wait", "-D", data, "-o", options, "-l", home / "old.log")
    sql = "CREATE TABLE heirloom AS SELECT generate_series(1, 1000) AS n"
    local = (f"--host={sockets}", "--username=postgres", "--no-psqlrc", "--tuples-only")
    as_postgres("psql", *local, f"--command={sql}")
    as_postgres("pg_ctl", "stop", "--wait", "-D", data)
    assert inspect(data, bin_dir=BIN).data.shut_down_cleanly

    await unborn.cluster.start()
    picture = await unborn.cluster.until(lambda picture: picture.whole, "both nodes to serve")
    assert picture.state.leader == "ams"
    standby = unborn.cluster.directory / "fra" / "run"
    count = as_postgres(
        "psql", f"--host={standby}", *local[1:], "--command=SELECT count(*) FROM heirloom"
    )
    assert int(count) == 1000


class Door(asyncssh.SSHServer):
    """An sshd that lets everybody in, and on to wherever they want to be led."""

    def begin_auth(self, username: str) -> bool:
        return False

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True


async def test_a_node_whose_address_was_edited_is_refused_before_anything_is_changed(
    person: Person,
) -> None:
    """Two machines of one name could both take writes."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    async with asyncssh.listen("0.0.0.0", 0, server_factory=Door, server_host_keys=[key]) as door:
        right = f"{person.toml.read_text()}\n[provision]\nssh_port = {door.get_port()}\n"
        fra = place(person.toml).config.nodes["fra"].host
        moved = right.replace(f'"{fra}"', '"127.99.0.2"')
        assert moved != right
        verbs = (
            ("provision",),
            ("config", "apply"),
            ("node", "replace", "wit", "--by", "w=127.99.0.9"),
        )
        for verb, *words in verbs:
            person.toml.write_text(moved)
            refused = await person.types(verb, *words)
            assert f"fra is at https://{fra}:" in refused.err, refused.err
            assert "and at https://127.99.0.2:" in refused.err
            assert "node replace fra --by NEW=HOST" in refused.err
            assert person.toml.read_text() == moved
        person.toml.write_text(right)
        # It goes on to what this test has none of: files for the hosts.
        assert "by flightmode.toml" not in (await person.types("provision")).err
