"""`flightmode destroy` asks for the cluster's name, and touches nothing before it has it."""

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit

from flightmode.cli.commands.life import take_down
from flightmode.cli.options import place
from flightmode.errors import HostUnreachable
from tests.unit.commands import Ran, flightmode
from tests.unit.provision.world import World

Capsys = pytest.CaptureFixture[str]


class Door:
    """What listens where the hosts' sshd would be; it counts who knocks, and lets nobody in."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.knocks = 0
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            link, _ = self._socket.accept()
            with link:
                if link.recv(4) == b"shut":
                    return
                self.knocks += 1

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as link:
            link.sendall(b"shut")
        self._thread.join()
        self._socket.close()


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.close()


@pytest.fixture
def made(tmp_path: Path, capsys: Capsys, door: Door) -> Path:
    """A cluster's flightmode.toml whose first host is behind that door."""
    home = tmp_path / "cluster"
    words = ["--database", "ams=127.0.0.1", "--database", "fra=127.0.0.2", "--name", "shop"]
    assert flightmode(capsys, "init", home, *words, "--witness", "wit=127.0.0.3").status == 0
    document = tomlkit.parse((home / "flightmode.toml").read_text())
    document.setdefault("provision", tomlkit.table())["ssh_port"] = door.port
    (home / "flightmode.toml").write_text(tomlkit.dumps(document))
    return home / "flightmode.toml"


def everything(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def typed(
    made: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch, said: str, *words: str
) -> Ran:
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    return flightmode(capsys, "destroy", *words, "--config", made)


@pytest.mark.parametrize("said", ["main\n", "yes\n", "y\n", "SHOP\n", "shop!\n"])
def test_a_wrong_name_touches_nothing(
    said: str, made: Path, door: Door, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(made.parent)
    ran = typed(made, capsys, monkeypatch, said)
    assert ran.status == 1
    assert "Type the cluster's name (shop) to take it down" in ran.err
    assert "FM523" in ran.err
    assert "nothing was done" in ran.err
    assert ran.out.strip() == ""
    assert door.knocks == 0
    assert everything(made.parent) == before


def test_a_wrong_name_of_a_script_is_not_asked_again(
    made: Path, door: Door, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = typed(made, capsys, monkeypatch, "shop\n", "--name", "main", "--json")
    assert (ran.status, ran.error["code"], ran.out) == (1, "FM523", "")
    assert door.knocks == 0


@pytest.mark.parametrize("said", ["", "\n"])
def test_who_says_nothing_has_not_said_yes(
    said: str, made: Path, door: Door, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a script whose variable is empty, with nobody to be asked."""
    for words in ([], ["--name", ""], ["--name", " "]):
        ran = typed(made, capsys, monkeypatch, said, *words)
        assert ran.status == 1, ran
        assert door.knocks == 0


@pytest.mark.parametrize("flag", ["--yes", "-y", "--force"])
def test_no_flag_stands_for_the_name(
    flag: str, made: Path, door: Door, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = typed(made, capsys, monkeypatch, "shop\n", flag)
    assert ran.status == 2
    assert door.knocks == 0


@pytest.mark.parametrize(
    ("said", "words"), [("shop\n", []), (" shop \n", []), ("", ["--name=shop"])]
)
def test_its_name_lets_it_begin(
    said: str,
    words: list[str],
    made: Path,
    door: Door,
    capsys: Capsys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as the door: so the others would have been seen there."""
    ran = typed(made, capsys, monkeypatch, said, *words)
    assert ran.status == 69, ran
    assert "FM801" in ran.err
    assert door.knocks > 0


@pytest.mark.parametrize("name", ["ber", "AMS", ""])
def test_only_machines_that_there_are_can_be_left_out(
    name: str, made: Path, door: Door, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = typed(made, capsys, monkeypatch, "shop\n", "--without", name)
    assert ran.status == 64, ran
    assert "these are: ams, fra, wit" in " ".join(ran.err.split())
    assert door.knocks == 0


async def test_machines_that_do_not_answer_are_named_all_at_once_with_what_leaves_them_out(
    made: Path,
) -> None:
    world = World(away={"fra", "wit"})
    with pytest.raises(HostUnreachable, match="nothing was done") as refused:
        await take_down(place(made), world, without=["ams"], json=False)
    assert "fra (127.0.0.2)" in refused.value.message
    assert "wit (127.0.0.3)" in refused.value.message
    assert refused.value.hint_text == (
        f"flightmode destroy --without ams --without fra --without wit --config {made}"
    )
    assert world.told == []


async def test_what_is_on_a_machine_that_was_left_out_is_said(made: Path, capsys: Capsys) -> None:
    world = World(away={"fra"})
    await take_down(place(made), world, without=["fra"], json=False)
    assert sorted(world.told) == ["ams is taken off", "wit is taken off"]
    told = " ".join(capsys.readouterr().out.split())
    assert "fra (127.0.0.2) was left out, and has all of it still: " in told
    assert "flightmode-fence.service" in told
    assert "PostgreSQL's data in /var/lib/flightmode/postgres" in told
    assert "when it is there again: flightmode destroy --config" in told


async def test_with_all_machines_there_nothing_is_left_out(made: Path, capsys: Capsys) -> None:
    await take_down(place(made), World(), without=[], json=False)
    assert "nothing of it runs any more; what is kept" in capsys.readouterr().out
