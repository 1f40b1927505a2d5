"""A cluster grows by a node, and moves onto other machines, under load."""

import asyncio
import signal
import sys
import time

import pytest

from flightmode.config.edit import with_node_exchanged
from flightmode.config.schema import NodeSettings
from flightmode.demo.proxied import Application
from flightmode.model.member import NodeKind
from tests.hosts.machines import Founder, acknowledged, founder, missing, told, writing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.story,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

ELSEWHERE = ("ber", "osl", "vie")
_LEFT = (
    "systemctl list-units --no-legend --state=active,activating,failed 'flightmode*.service'; "
    "ls -d /etc/flightmode /opt/flightmode 2>/dev/null || true"
)


def nodes(me: Founder) -> dict[str, dict[str, object]]:
    status = me.status()
    assert status is not None
    return {each["name"]: each for each in status["nodes"]}


async def a_third_copy(me: Founder, application: Application) -> None:
    """Where the witness was."""
    address = me.hosts.machines["ber"].address
    added = await asyncio.to_thread(me.does, "node", "add", f"ber={address}")
    assert "the cluster is whole" in added.out
    now = nodes(me)
    assert {name: each["kind"] for name, each in now.items()} == dict.fromkeys(
        ("ams", "fra", "ber"), "database"
    )
    assert sum(bool(each["streaming"]) for each in now.values()) == 2
    assert me.hosts.ssh("wit", _LEFT) == ""
    assert not (me.home / "nodes" / "wit").exists()
    await acknowledged(application, 20)


def elsewhere(me: Founder) -> str:
    """The same file with the nodes as they shall be."""
    text = me.toml.read_text()
    for out, name, kind in (
        ("ams", "osl", NodeKind.DATABASE),
        ("fra", "vie", NodeKind.WITNESS),
    ):
        settings = NodeSettings(kind=kind, host=me.hosts.machines[name].address)
        text = with_node_exchanged(text, out, name, settings)
    return text


async def cut_off_in_the_middle(me: Founder, application: Application, to: str) -> None:
    """Ctrl-C once the first exchange has begun; nothing else begins before it is finished."""
    argv = [sys.executable, "-m", "flightmode.cli.main", "move", "--to", to]
    argv += ["--config", str(me.toml)]
    process = await asyncio.create_subprocess_exec(*argv, cwd="/")
    until_s = time.monotonic() + 120
    while not list((me.home / "leaving").glob("*.toml")):
        assert process.returncode is None, "it ended before it had begun"
        assert time.monotonic() < until_s, "it has not begun"
        await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.wait(), 60)
    refused = await asyncio.to_thread(me.types, "provision", "--config", str(me.toml))
    assert refused.status == 64, refused.out
    assert "flightmode node finish" in refused.out
    await acknowledged(application, 20)


async def test_a_cluster_moves_while_its_clients_stay() -> None:
    with founder(more=ELSEWHERE) as me:
        me.begins()
        me.does("provision")
        me.make_database()
        with me.tunnel() as conninfo:
            async with writing(conninfo) as application:
                await acknowledged(application, 50)
                await a_third_copy(me, application)
                to = me.home / "elsewhere.toml"
                to.write_text(elsewhere(me))
                await cut_off_in_the_middle(me, application, str(to))
                moved = await asyncio.to_thread(me.does, "move", "--to", str(to), within_s=900.0)
                assert "the cluster is whole" in moved.out
                await acknowledged(application, 50)
                end = await told(application)
        print(f"{end}; the rest took {moved.took_s:.0f} s")
        end.as_promised()
        assert {name: each["kind"] for name, each in nodes(me).items()} == {
            "ber": "database",
            "osl": "database",
            "vie": "witness",
        }
        for name in ("ams", "fra", "wit"):
            assert me.hosts.ssh(name, _LEFT) == ""
        assert me.toml.read_text() == to.read_text()
        assert "nothing to do" in me.does("provision").out
