"""A server that is taken over is stopped only where nothing keeps the cluster from being made."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flightmode.errors import HostUnfit
from flightmode.provision.apply import plan_all
from flightmode.provision.facts import DebianCluster, Facts, Unit, script
from flightmode.provision.plan import Plan
from flightmode.provision.takeover import obstacles
from flightmode.remote.port import Ran
from tests.unit.provision.test_plan import ADOPTING, BARE, DEBIAN_S, done, planned, want

DATA = "/var/lib/postgresql/15/main"
OLD = replace(BARE, clusters=(DEBIAN_S,), has_data=True, listeners={5432: "postgres"})
STOPPED = replace(DEBIAN_S, active=False)


def found(**facts: Facts) -> list[tuple[str, str]]:
    return obstacles(ADOPTING, [(want(name, ADOPTING), each) for name, each in facts.items()])


def test_data_on_the_other_node_forbid_it_whoever_made_them() -> None:
    assert found(ams=OLD, fra=BARE, wit=BARE) == []
    for clusters in ((), (STOPPED,), (replace(STOPPED, start="disabled"),)):
        ((name, told),) = found(ams=OLD, fra=replace(BARE, clusters=clusters, has_data=True))
        assert name == "fra"
        assert f"has something in {DATA}" in told
        assert f"`mv -T {DATA} {DATA}.before`" in told
    ((_, told),) = found(ams=OLD, fra=OLD)
    assert f"`systemctl stop postgresql@15-main.service && mv -T {DATA} {DATA}.before`" in told


def test_data_on_another_node_are_its_own_business_where_nothing_is_taken_over() -> None:
    theirs = replace(BARE, has_data=True)
    assert found(ams=BARE, fra=theirs) == []
    assert found(ams=replace(BARE, has_data=True), fra=theirs) == []
    taken = replace(done(want("ams", ADOPTING)), clusters=(replace(STOPPED, start="disabled"),))
    assert found(ams=taken, fra=theirs) == []
    # Somebody has undone `disabled`: nothing is stopped by it, the fence has the data.
    assert found(ams=replace(taken, clusters=(STOPPED,)), fra=theirs) == []


def test_a_standby_of_the_cluster_is_nobody_s_to_move_away() -> None:
    down = replace(BARE, clusters=(STOPPED,), units={"flightmode-fence.service": Unit("", "")})
    fra = replace(done(want("fra", ADOPTING)), has_data=True)
    ((name, told),) = found(ams=down, fra=fra)
    assert name == "fra"
    assert "mv" not in told
    assert "echo disabled > /etc/postgresql/15/main/start.conf" in told


def test_it_is_not_done_in_a_run_that_leaves_a_database_node_out() -> None:
    ((name, told),) = found(ams=OLD, wit=BARE)
    assert name == "ams"
    assert "leaves out fra" in told


def test_only_the_node_that_makes_the_cluster_takes_anything_over() -> None:
    theirs = planned("fra", OLD, ADOPTING)
    assert theirs.steps == ()
    assert theirs.unfit[0] == "has another program, postgres, listening on port 5432"
    assert "postgresql@15-main.service" in theirs.unfit[1]
    assert f"mv -T {DATA} {DATA}.before" in theirs.unfit[1]
    cluster = ADOPTING.cluster.model_copy(update={"bootstrap": "fra"})
    other = ADOPTING.model_copy(update={"cluster": cluster})
    stops = "postgresql@15-main.service stops, for good"
    assert stops in [step.title for step in planned("fra", OLD, other).steps]
    assert planned("ams", OLD, other).steps == ()


class Answers:
    """A host that answers a look, and on which nothing else may be done."""

    def __init__(self, facts: str) -> None:
        self.facts = facts

    async def run(
        self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
    ) -> Ran:
        assert "echo end" in command.replace('"', ""), "only looks"
        head = f"os debian 12\nmachine x86_64\nfree 9999\nclock {time.time()}"
        return Ran(0, f"{head}\n{self.facts}\nend\n", "")

    async def put(self, path: str, content: bytes, *, mode: int, owner: str) -> None:
        raise AssertionError("something was written")

    async def close(self) -> None:
        """Nothing to let go of."""


async def plans(fra: str) -> list[Plan]:
    remotes = {
        "ams": Answers(f"cluster 15 main auto active {DATA}\ndata"),
        "fra": Answers(fra),
    }
    hosts = [want(name, ADOPTING) for name in remotes]
    return await plan_all(ADOPTING, hosts, remotes, None)


async def test_it_is_told_before_anything_is_done_anywhere() -> None:
    assert [each.unfit for each in await plans("")] == [(), ()]
    with pytest.raises(HostUnfit, match=f"nothing was changed:\n  fra has something in {DATA}"):
        await plans("data")


@pytest.mark.parametrize(("content", "told"), [(None, False), ("", False), ("PG_VERSION", True)])
def test_a_look_says_whether_there_are_data(
    tmp_path: Path, content: str | None, told: bool
) -> None:
    data = tmp_path / "two words"
    if content is not None:
        data.mkdir()
    if content:
        (data / content).touch()
    text = script(replace(want("fra", ADOPTING), data_dir=str(data)))
    (asked,) = (line for line in text.splitlines() if line.endswith("|| echo data"))
    done = subprocess.run(["sh", "-c", asked], capture_output=True, text=True, check=True)
    assert (done.stdout == "data\n") is told
    assert "echo data\n" not in script(want("wit"))


def test_a_cluster_of_another_place_is_not_taken_over() -> None:
    other = DebianCluster("15", "other", "auto", False, "/srv/other")
    assert found(ams=replace(BARE, clusters=(other,)), fra=replace(BARE, has_data=True)) == []
