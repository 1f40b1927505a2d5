"""One machine makes room for another: what is known before, and what a cut-off run leaves."""

from pathlib import Path

import pytest

from flightmode.cli.commands.anew import begin_anew
from flightmode.cli.commands.exchanging import Exchanging, replace_text
from flightmode.cli.leaving import anew_of, nothing_is_leaving, record_of
from flightmode.cli.options import place, text_of
from flightmode.config.schema import NodeSettings
from flightmode.errors import (
    CertificateInvalid,
    HostUnfit,
    HostUnreachable,
    RequestRefused,
    RequestWrong,
)
from flightmode.pki import Authority, check_certificate
from flightmode.provision.rejoin import existing
from flightmode.provision.succession import Exchange
from tests.unit.commands import flightmode
from tests.unit.provision.world import Cut, World

FOLLOW = "etcd's members change"


@pytest.fixture
def toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    home = tmp_path / "cluster"
    assert flightmode(capsys, "init", home).status == 0
    return home / "flightmode.toml"


def by(host: str, out: str = "ams") -> Exchange:
    return Exchange(out, "par", NodeSettings(host=host))


def exchanging(toml: Path, world: World) -> Exchanging:
    return Exchanging(toml, wait_s=0.5, json=True, ways=world)


async def cut_off(toml: Path, world: World, event: str) -> None:
    world.cut_at(event)
    with pytest.raises(Cut):
        await exchanging(toml, world).exchange(by("10.0.0.4"))
    assert record_of(toml, "ams").exists()
    world.told.clear()


# ------------------------------------------------------------------- what is known before


async def test_an_exchange_goes_its_way(toml: Path) -> None:
    world = World()
    await exchanging(toml, world).exchange(by("10.0.0.4"))
    assert world.told == [
        "fra leads",
        FOLLOW,
        "fra hears of it",
        "wit hears of it",
        "ams is taken off",
        "bring par fra wit",
    ]
    assert [*place(toml).config.nodes] == ["par", "fra", "wit"]
    nothing_is_leaving(place(toml))


async def test_a_corrected_address_comes_with_a_certificate_for_it(toml: Path) -> None:
    world, before = World(debian={"10.0.0.4": "11"}), text_of(toml)
    with pytest.raises(HostUnfit):
        await exchanging(toml, world).exchange(by("10.0.0.4"))
    assert (world.told, text_of(toml)) == ([], before)
    await exchanging(toml, world).exchange(by("10.0.0.5"))
    hosts = check_certificate(toml.parent / "nodes/par/tls", "node").hosts
    assert "10.0.0.5" in hosts
    assert "10.0.0.4" not in hosts


@pytest.mark.parametrize("host", ["db.example.com", "b c", "10.0.0", "localhost"])
def test_what_is_no_address_is_refused_before_anything_is_made(
    toml: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    ran = flightmode(capsys, "node", "replace", "fra", "--by", f"par={host}", "--config", toml)
    assert ran.status == 64, ran
    assert "is not an IP address" in ran.err
    assert not (toml.parent / "nodes" / "par").exists()


@pytest.mark.parametrize(("host", "days"), [("10.0.0.2", -1), ("10.0.0.99", 9)])
async def test_a_certificate_that_could_not_be_brought_in_the_end_stops_it_at_once(
    toml: Path, host: str, days: int
) -> None:
    world, before = World(), text_of(toml)
    authority = Authority.load(toml.parent / "ca")
    authority.issue_node("fra", [host], days=days).save(toml.parent / "nodes/fra/tls", "node")
    with pytest.raises(CertificateInvalid):
        await exchanging(toml, world).exchange(by("10.0.0.4"))
    assert (world.told, text_of(toml)) == ([], before)


# ------------------------------------------------------------------- who leads meanwhile


@pytest.mark.parametrize("event", ["etcd is asked", FOLLOW])
async def test_who_goes_hands_over_again_when_it_has_taken_over_since(
    toml: Path, event: str
) -> None:
    """The others would not know it, once they go by the new file: neither follow nor lead."""
    world = World()
    await cut_off(toml, world, event)
    world.writes = "ams"
    await exchanging(toml, world).finish()
    assert world.told[0] == "fra leads"
    assert world.told[-2:] == ["ams is taken off", "bring par fra wit"]


async def test_who_goes_and_leads_alone_is_let_go_by_nobody(toml: Path) -> None:
    world = World()
    await cut_off(toml, world, "etcd is asked")
    world.writes = "ams"
    world.alive.remove("fra")
    members, text = world.members.known, text_of(toml)
    with pytest.raises(RequestRefused, match=r"ams is to go, .* nobody can take over from it: no"):
        await exchanging(toml, world).finish()
    assert (world.told, world.members.known, text_of(toml)) == ([], members, text)
    world.alive.add("fra")
    await exchanging(toml, world).finish()
    assert world.told[:2] == ["fra leads", FOLLOW]


async def test_who_takes_over_while_the_others_hear_of_it_hands_over_before_they_do(
    toml: Path,
) -> None:
    world = World()

    def fails_over(event: str) -> None:
        if event == FOLLOW:
            world.writes = "ams"

    world.when = fails_over
    await exchanging(toml, world).exchange(by("10.0.0.4"))
    assert world.told[:4] == ["fra leads", FOLLOW, "fra leads", "fra hears of it"]


# ------------------------------------------------------------------- the record


@pytest.mark.parametrize("record", ["whole", "half"])
async def test_what_had_not_begun_takes_nothing_off_a_machine_that_stays(
    toml: Path, record: str
) -> None:
    """Cut off between the record and flightmode.toml."""
    text, world = text_of(toml), World()
    record_of(toml, "ams").parent.mkdir()
    record_of(toml, "ams").write_text(text if record == "whole" else text[: len(text) // 2] + "[")
    await exchanging(toml, world).finish()
    assert (world.told, text_of(toml)) == ([], text)
    nothing_is_leaving(place(toml))


async def test_an_exchange_that_has_begun_is_not_forgotten_for_an_old_file(toml: Path) -> None:
    """Somebody has put back the flightmode.toml of before."""
    world, before = World(), text_of(toml)
    await cut_off(toml, world, "wit hears of it")
    after = text_of(toml)
    replace_text(toml, before)
    with pytest.raises(RequestWrong, match="put back the one that it wrote"):
        await exchanging(toml, world).finish()
    assert (world.told, record_of(toml, "ams").exists()) == ([], True)
    replace_text(toml, after)
    await exchanging(toml, world).finish()
    assert world.told[-1] == "bring par fra wit"


def test_flightmode_toml_keeps_its_mode(toml: Path) -> None:
    toml.chmod(0o600)
    replace_text(toml, "# new")
    assert (toml.stat().st_mode & 0o777, toml.read_text()) == (0o600, "# new")


# ------------------------------------------------------------------- the same name, anew


async def anew(toml: Path, world: World, *, force: bool = False) -> None:
    await begin_anew(place(toml), "fra", world, force=force, wait_s=0.5, json=True)


async def anew_cut_off(toml: Path, event: str) -> World:
    world = World()
    world.cut_at(event)
    with pytest.raises(Cut):
        await anew(toml, world, force=True)
    return world


def numbers(world: World) -> list[int]:
    return [each.id for each in world.members.known]


async def test_a_machine_that_comes_anew_is_another_member(toml: Path) -> None:
    world = World(alive={"ams", "wit"})
    await anew(toml, world)
    assert world.told == [FOLLOW, "bring ams fra wit"]
    assert numbers(world) == [1, 3, 100]
    nothing_is_leaving(place(toml))


async def test_a_machine_that_does_not_fit_costs_etcd_no_member(toml: Path) -> None:
    unfit, gone = World(debian={"10.0.0.2": "11"}), World(away={"fra"})
    for world, error in ((unfit, HostUnfit), (gone, HostUnreachable)):
        with pytest.raises(error):
            await anew(toml, world, force=True)
        assert (world.told, numbers(world)) == ([], [1, 2, 3])
        nothing_is_leaving(place(toml))


@pytest.mark.parametrize("way", ["finish", "again"])
async def test_one_that_was_cut_off_goes_on_and_nothing_else_begins(toml: Path, way: str) -> None:
    """Also while the node is heard of: its agent runs, and its etcd was struck off."""
    world = await anew_cut_off(toml, FOLLOW)
    with pytest.raises(RequestWrong, match="the exchange of fra was begun") as refused:
        nothing_is_leaving(place(toml))
    assert "node finish" in refused.value.hint_text
    nothing_is_leaving(place(toml), anew_of(toml, "fra"))
    await (exchanging(toml, world).finish() if way == "finish" else anew(toml, world))
    assert world.told == [FOLLOW, "bring ams fra wit"]
    assert numbers(world) == [1, 3, 100]
    nothing_is_leaving(place(toml))


async def test_a_member_that_has_started_is_struck_off_by_no_second_run(toml: Path) -> None:
    world = await anew_cut_off(toml, "bring ams fra wit")
    world.started("fra", 100)
    world.held["fra"] = existing(100).content.decode()
    await exchanging(toml, world).finish()
    assert numbers(world) == [1, 3, 100]


async def test_one_whose_disk_is_gone_again_is_struck_off_by_a_second_run(toml: Path) -> None:
    """It would vote again under a number whose votes it has forgotten."""
    world = await anew_cut_off(toml, "bring ams fra wit")
    world.started("fra", 100)
    await anew(toml, world)
    assert numbers(world) == [1, 3, 101]


async def test_one_that_leads_by_now_is_not_struck_off(toml: Path) -> None:
    world = await anew_cut_off(toml, "etcd is asked")
    anew_of(toml, "fra").parent.mkdir(exist_ok=True)
    anew_of(toml, "fra").write_text("2")
    world.writes = "fra"
    with pytest.raises(RequestWrong, match="fra is the primary"):
        await exchanging(toml, world).finish()
    assert numbers(world) == [1, 2, 3]
