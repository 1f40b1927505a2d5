"""A cluster moves to where the file of the first reading says."""

from pathlib import Path

import pytest

from flightmode.cli.commands.moving import move_to
from flightmode.cli.options import place, text_of
from flightmode.config.edit import with_node_exchanged
from flightmode.config.schema import NodeSettings
from flightmode.errors import ConfigInvalid, RequestWrong
from flightmode.model.member import NodeKind
from tests.unit.commands import flightmode
from tests.unit.provision.world import Cut, World


@pytest.fixture
def toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    home = tmp_path / "cluster"
    assert flightmode(capsys, "init", home).status == 0
    return home / "flightmode.toml"


def elsewhere(text: str) -> str:
    text = with_node_exchanged(text, "fra", "vie", NodeSettings(host="10.9.0.2"))
    witness = NodeSettings(kind=NodeKind.WITNESS, host="10.9.0.3")
    return with_node_exchanged(text, "wit", "ber", witness)


async def move(toml: Path, text: str, world: World) -> None:
    await move_to(place(toml), text, "elsewhere.toml", world, wait_s=0.5, json=True)


async def test_it_ends_with_the_text_that_was_read_at_first(toml: Path) -> None:
    """The file of --to may be changed, or gone, an hour later."""
    text, world = elsewhere(text_of(toml)), World()
    await move(toml, text, world)
    assert text_of(toml) == text
    brought = [each for each in world.told if each.startswith("bring ")]
    assert [set(each.split()[1:]) for each in brought] == [
        {"ams", "fra", "vie"},
        {"ams", "vie", "ber"},
        {"ams", "vie", "ber"},
    ]


async def test_a_move_that_was_cut_off_goes_on(toml: Path) -> None:
    text, world = elsewhere(text_of(toml)), World()
    world.cut_at("wit is taken off")
    with pytest.raises(Cut):
        await move(toml, text, world)
    await move(toml, text, world)
    assert text_of(toml) == text


async def test_a_text_that_is_wrong_or_another_clusters_changes_nothing(toml: Path) -> None:
    before, world = text_of(toml), World()
    other = elsewhere(before).replace('name = "main"', 'name = "other"')
    for text, error in (("[nodes", ConfigInvalid), (other, RequestWrong)):
        with pytest.raises(error):
            await move(toml, text, world)
    assert (world.told, text_of(toml)) == ([], before)
