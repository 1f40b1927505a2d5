"""etcd's members follow the nodes, and data of a member that was struck off keep nobody out."""

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from flightmode.cli.commands.anew import may_be_replaced
from flightmode.config import parse
from flightmode.errors import RequestWrong, StoreUnknown
from flightmode.provision.rejoin import (
    DROP_IN,
    ETCD_DATA,
    HELD,
    announce,
    clearing,
    existing,
    follow,
    held_in,
    moved,
)
from flightmode.store.etcd_members import EtcdMember, EtcdMembers
from tests.unit.provision.test_plan import CONFIG, TEXT
from tests.unit.provision.test_removal import SYSTEMCTL

AWAY = parse(TEXT.replace("10.0.0.2", "10.0.0.77"), name="it")
"""With fra at another address."""


def member(number: int, name: str, host: str) -> EtcdMember:
    return EtcdMember(number, name, (f"https://{host}:2380",), (), learner=False)


@dataclass
class Members:
    """etcd's list, as the calls about it change it."""

    known: tuple[EtcdMember, ...]
    next: int = 100
    unsettled: int = 0
    """So many calls it does not answer, or refuses, first."""

    async def list(self) -> tuple[EtcdMember, ...]:
        self._settles()
        return self.known

    def _settles(self) -> None:
        if self.unsettled:
            self.unsettled -= 1
            raise StoreUnknown("no answer (https://a:2379: etcdserver: unhealthy cluster)")

    async def remove(self, number: int) -> None:
        self._settles()
        self.known = tuple(each for each in self.known if each.id != number)

    async def add(self, url: str) -> None:
        self._settles()
        self.known += (EtcdMember(self.next, "", (url,), (), learner=False),)
        self.next += 1

    async def health(self) -> dict[str, object]:
        return {}

    @property
    def calls(self) -> EtcdMembers:
        return cast("EtcdMembers", self)


def three() -> Members:
    hosts = (("ams", "10.0.0.1"), ("fra", "10.0.0.2"), ("wit", "10.0.0.3"))
    return Members(tuple(member(n, name, host) for n, (name, host) in enumerate(hosts, start=1)))


async def test_a_node_that_comes_anew_is_another_member_and_is_announced_once() -> None:
    members = three()
    first = await announce(members.calls, CONFIG, "fra")
    assert first == 100
    assert [each.id for each in members.known] == [1, 3, 100]
    assert await announce(members.calls, CONFIG, "fra") == first


@pytest.mark.parametrize("silent", [1, 2, 3])
async def test_what_etcd_does_not_answer_just_now_is_done_all_the_same(silent: int) -> None:
    """It elects a leader, or the member that came last has been connected for less than 5 s."""
    members = three()
    members.unsettled = silent
    assert await announce(members.calls, CONFIG, "fra") == 100
    assert [each.id for each in members.known] == [1, 3, 100]
    members.known = (*members.known[:2], member(9, "old", "10.0.0.99"))
    members.unsettled = silent
    assert await follow(members.calls, CONFIG) == {"fra": 101}


async def test_who_comes_anew_at_another_address_leaves_nothing_at_the_one_before() -> None:
    """The machine that was announced never came; or it came, and is lost too."""
    members = three()
    assert await announce(members.calls, AWAY, "fra") == 100
    assert await announce(members.calls, CONFIG, "fra") == 101
    assert [each.id for each in members.known] == [1, 3, 101]
    *others, new = members.known
    members.known = (*others, replace(new, name="fra"))
    assert await announce(members.calls, AWAY, "fra", held=101) == 102
    assert [each.id for each in members.known] == [1, 3, 102]


async def test_one_that_has_started_comes_back_under_its_number_only_with_its_data() -> None:
    members = three()
    assert await announce(members.calls, CONFIG, "fra", gone=7, held=2) == 2
    assert await announce(members.calls, CONFIG, "fra", gone=2, held=2) == 100
    *others, new = members.known
    members.known = (*others, replace(new, name="fra"))
    assert await announce(members.calls, CONFIG, "fra", gone=2) == 101


async def test_who_follows_the_file_is_told_by_its_number_until_it_has_started() -> None:
    members = three()
    members.known = (*members.known[:2], member(9, "old", "10.0.0.99"))
    assert await follow(members.calls, CONFIG) == {"wit": 100}
    assert await follow(members.calls, CONFIG) == {"wit": 100}
    *others, new = members.known
    members.known = (*others, replace(new, name="wit"))
    assert await follow(members.calls, CONFIG) == {}


def test_nodes_that_are_where_etcd_has_them_have_not_moved() -> None:
    assert moved(three().known, CONFIG) == {}
    assert moved((), CONFIG) == {}, "nobody to ask: a first provision"


def test_a_node_with_another_host_in_the_file_is_told_with_both_addresses() -> None:
    members = three()
    members.known = (members.known[0], member(2, "fra", "10.0.0.77"), members.known[2])
    assert moved(members.known, CONFIG) == {
        "fra": "fra is at https://10.0.0.77:2380 by etcd, and at https://10.0.0.2:2380 "
        "by flightmode.toml"
    }


def test_another_port_of_its_etcd_is_another_address_too() -> None:
    text = TEXT.replace('"10.0.0.2"', '"10.0.0.2"\netcd_peer_port = 2999')
    assert [*moved(three().known, parse(text, name="it"))] == ["fra"]


def test_a_node_with_another_name_is_told_as_well() -> None:
    config = parse(TEXT.replace("nodes.fra", "nodes.par"), name="it")
    told = "who is at https://10.0.0.2:2380 is fra by etcd, and par by flightmode.toml"
    assert moved(three().known, config) == {"par": told}


def test_a_node_with_another_name_and_another_host_is_unknown_to_etcd() -> None:
    text = TEXT.replace("nodes.fra", "nodes.par").replace("10.0.0.2", "10.0.0.77")
    (told,) = moved(three().known, parse(text, name="it")).values()
    assert told.startswith("etcd knows no par at https://10.0.0.77:2380; it knows ams at ")


async def test_who_was_announced_at_another_address_has_not_moved_before_it_starts_either() -> None:
    """`node replace` without --by, to the address that the file has now."""
    members = three()
    members.known = (members.known[0], member(2, "fra", "10.0.0.77"), members.known[2])
    await announce(members.calls, CONFIG, "fra")
    assert [each.name for each in members.known] == ["ams", "wit", ""]
    assert moved(members.known, CONFIG) == {}


async def test_after_the_members_have_followed_the_file_nobody_has_moved() -> None:
    members = three()
    members.known = (*members.known[:2], member(9, "old", "10.0.0.99"))
    await follow(members.calls, CONFIG)
    assert moved(members.known, CONFIG) == {}


@dataclass
class Disk:
    """A host's disk with etcd on it, as the commands see it."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "etcd"

    @property
    def drop_in(self) -> Path:
        return self.home / "rejoin.conf"

    def clears(self, number: int) -> str:
        (step,) = clearing("fra", number).steps
        assert step.tells
        return self._said(step.command)

    def holds(self) -> int | None:
        return held_in(self._said(HELD))

    def _said(self, command: str) -> str:
        text = command.replace(ETCD_DATA, str(self.data)).replace(DROP_IN, str(self.drop_in))
        path = f"{self.home}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", text], capture_output=True, text=True, env={"PATH": path}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    made = Disk(tmp_path)
    (made.data / "member" / "wal").mkdir(parents=True)
    return made


def test_data_of_a_member_that_was_struck_off_go_aside_with_etcd_stopped(disk: Disk) -> None:
    (disk.home / "flightmode-etcd.service.load").write_text("loaded\n")
    (disk.home / "flightmode-etcd.service.active").write_text("active\n")
    (disk.home / "flightmode-etcd.service.after").write_text("inactive\n")
    kept = Path(disk.clears(100))
    assert kept.name.startswith("etcd.old-")
    assert (kept / "member" / "wal").is_dir()
    assert not disk.data.exists()
    assert (disk.home / "flightmode-etcd.service.active").read_text() == "inactive\n"


def test_data_of_the_new_member_itself_are_left_alone_when_it_is_typed_again(disk: Disk) -> None:
    """They may hold what the others count on it for."""
    disk.drop_in.write_bytes(existing(100).content)
    assert disk.clears(100) == ""
    assert (disk.data / "member" / "wal").is_dir()
    assert disk.clears(101) != "", "another one was announced since"
    assert not disk.data.exists()


def test_a_machine_says_which_member_its_data_are_of(disk: Disk) -> None:
    assert disk.holds() is None, "the others knew that member before we announced one"
    disk.drop_in.write_bytes(existing(0xAB12).content)
    assert disk.holds() == 0xAB12
    (disk.data / "member" / "wal").rmdir()
    (disk.data / "member").rmdir()
    assert disk.holds() is None, "they are gone"


def test_a_bare_host_has_nothing_to_clear(disk: Disk) -> None:
    (disk.data / "member" / "wal").rmdir()
    (disk.data / "member").rmdir()
    assert disk.clears(100) == ""
    disk.data.rmdir()
    assert disk.clears(100) == ""


def test_a_node_that_is_heard_of_is_replaced_only_by_force() -> None:
    node = {"name": "fra", "heard": True}
    status = {"writes": "ams", "route": "", "nodes": [{"name": "ams", "heard": True}, node]}
    with pytest.raises(RequestWrong, match="fra is still heard of"):
        may_be_replaced(status, "fra", force=False)
    may_be_replaced(status, "fra", force=True)
    node["heard"] = False
    may_be_replaced(status, "fra", force=False)
    for force in (True, False):
        with pytest.raises(RequestWrong, match="ams is the primary"):
            may_be_replaced(status, "ams", force=force)
