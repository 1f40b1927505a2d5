"""The command that installs a release, run here by a shell with a Python that only pretends."""

import io
import os
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flightmode.provision.facts import CURRENT, RELEASES, Facts, read, script
from flightmode.provision.unpacking import LOCK, unpack_command
from tests.unit.provision.test_plan import RELEASE, want

PYTHON = """#!/bin/sh
# As /usr/bin/python3 it makes an environment, and inside of one it imports what is there.
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python3"
    cp "$HERE/pip" "$3/bin/pip"
else
    # Without -I it would also import what is where it is called.
    [ "$1" = -I ] && [ -e "$(dirname "$0")/../flightmode" ]
fi
"""
PIP = """#!/bin/sh
echo "$(readlink "$HERE/opt/current")" >> "$HERE/installs"
sleep "${SLOW:-0}"
ls "$(dirname "$0")/../../"*.wheels/a.whl >/dev/null || exit 1
[ -z "$CUT" ] || exit 1
echo code > "$(dirname "$0")/../flightmode"
"""
SYNC = """#!/bin/sh
echo "$2: $(ls -A "$2" | tr '\\n' ' ')" >> "$HERE/synced"
"""


class Host:
    def __init__(self, here: Path) -> None:
        self.here, self.opt = here, here / "opt"
        (here / "programs").mkdir()
        for name, text in (("programs/python3", PYTHON), ("pip", PIP), ("programs/sync", SYNC)):
            (here / name).write_text(text)
            (here / name).chmod(0o755)

    def local(self, command: str) -> str:
        for theirs, ours in (
            (LOCK, f"{self.here}/lock"),
            ("/usr/local/bin/flightmode", f"{self.here}/flightmode"),
            (RELEASES, str(self.opt)),
            ("/var/lib/.flightmode", f"{self.here}/.flightmode"),
        ):
            command = command.replace(theirs, ours)
        return command

    def begins(self, release: str = RELEASE, **environment: str) -> subprocess.Popen[bytes]:
        path = f"{self.here}/programs:{os.environ['PATH']}"
        told = {"PATH": path, "HERE": str(self.here), **environment}
        argv = ["sh", "-c", self.local(unpack_command(release))]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=told)

    def installs(self, release: str = RELEASE, **environment: str) -> int:
        run = self.begins(release, **environment)
        run.communicate(wheels(), timeout=30)
        return run.returncode

    @property
    def current(self) -> str:
        return os.readlink(self.opt / "current").removeprefix(f"{self.opt}/")

    @property
    def runs_of_pip(self) -> int:
        return len((self.here / "installs").read_text().splitlines())

    def looked(self) -> Facts:
        text = self.local(script(want("web")))
        done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False)
        facts = read(done.stdout)
        assert facts is not None, done.stderr
        return facts


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def wheels() -> bytes:
    """More than a pipe holds: a command that does not read it keeps its sender waiting."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a.whl")
        info.size = 1 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def test_a_release_is_current_when_it_is_whole_and_on_the_disk(host: Host) -> None:
    assert host.installs() == 0
    assert host.current == RELEASE
    assert host.looked().release == RELEASE
    assert (host.here / "flightmode").is_symlink()
    assert not (host.opt / f"{RELEASE}.wheels").exists()
    before, marked, renamed = (host.here / "synced").read_text().splitlines()
    assert before == f"{host.opt}/{RELEASE}: bin flightmode "
    assert marked == f"{host.opt}/{RELEASE}: .complete bin flightmode "
    assert renamed == f"{host.opt}: {RELEASE} current "


def test_one_that_is_there_is_left_alone_by_whoever_comes_again(host: Host) -> None:
    host.installs()
    before = (host.opt / RELEASE).stat()
    assert host.installs() == 0
    assert host.runs_of_pip == 1
    assert (host.opt / RELEASE).stat() == before


def test_one_that_was_cut_off_is_no_release_and_the_next_run_makes_it(host: Host) -> None:
    host.installs("0.0.9-old")
    assert host.installs(CUT="1") != 0
    assert host.current == "0.0.9-old"
    assert host.looked().release == "0.0.9-old"
    assert host.installs() == 0
    assert host.looked().release == RELEASE


@pytest.mark.parametrize("damage", [".complete", "flightmode"])
def test_a_current_one_that_is_not_whole_is_made_anew_beside_what_may_run(
    host: Host, damage: str
) -> None:
    host.installs()
    (host.opt / RELEASE / damage).unlink()
    left = sorted(path.name for path in (host.opt / RELEASE).iterdir())
    if damage == ".complete":
        assert host.looked().release == ""
    assert host.installs() == 0
    assert host.current == f"{RELEASE}.again"
    assert host.looked().release == RELEASE
    assert sorted(path.name for path in (host.opt / RELEASE).iterdir()) == left
    # And once more, the other way round; there are never more than two.
    (host.opt / f"{RELEASE}.again" / damage).unlink()
    assert host.installs() == 0
    assert host.current == RELEASE
    assert host.installs() == 0
    assert host.runs_of_pip == 3


def test_two_at_once_install_it_once(host: Host) -> None:
    with ThreadPoolExecutor(2) as both:
        ended = list(both.map(lambda _: host.installs(SLOW="0.3"), range(2)))
    assert ended == [0, 0]
    assert host.runs_of_pip == 1
    assert host.looked().release == RELEASE


def test_the_way_back_to_a_whole_release_makes_nothing_anew(host: Host) -> None:
    host.installs("0.0.9-old")
    host.installs()
    assert host.installs("0.0.9-old") == 0
    assert host.current == "0.0.9-old"
    assert host.runs_of_pip == 2


def test_a_fence_of_a_release_that_was_made_anew_is_of_that_release() -> None:
    facts = read(f"fence {RELEASES}/{RELEASE}.again/bin/flightmode-fence\nend\n")
    assert facts is not None
    assert facts.fence == RELEASE
    assert f"readlink {CURRENT}" in script(want("web"))
