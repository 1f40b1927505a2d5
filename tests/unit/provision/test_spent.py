"""What of a run's time was Debian's packages, and what was ours."""

import asyncio

import pytest

from flightmode.provision.apply import Progress, carry_out
from flightmode.provision.plan import Plan, Step
from flightmode.provision.spent import covered_s, spent
from flightmode.provision.wheels import Release
from flightmode.remote.port import Ran

INSTALL = "apt-get install"


def installed(host: str, began_s: float, ended_s: float) -> Progress:
    took_s = ended_s - began_s
    return Progress(host, 1, 2, "", ended=True, took_s=took_s, debian=True, ended_s=ended_s)


def test_what_hosts_do_side_by_side_is_counted_once() -> None:
    assert covered_s([]) == 0.0
    assert covered_s([(2.0, 5.0), (1.0, 3.0), (2.5, 2.6), (7.0, 8.0)]) == 5.0


def test_the_stretches_of_a_run_are_all_of_it() -> None:
    steps = [
        Progress("ams", 1, 2, "", ended=False, debian=True),
        installed("ams", 110.0, 150.0),
        installed("fra", 112.0, 160.0),
        Progress("wit", 2, 2, "", ended=True, took_s=30.0, ended_s=160.0),
    ]
    went = spent(steps, began_s=100.0, stepped_s=110.0, settled_s=175.0, ended_s=180.0)
    assert (went.packages_s, went.ours_s, went.all_s) == (50.0, 30.0, 80.0)
    assert (went.making_s, went.steps_s, went.settling_s) == (10.0, 15.0, 5.0)
    assert str(went).startswith("50 s for Debian's packages, 30 s for the rest (10 s to look")
    assert sum(went.as_json()[name] for name in ("ours_s", "packages_s")) == 80.0


class Installing:
    """A host on which packages take a while, and all else no time."""

    async def run(
        self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
    ) -> Ran:
        await asyncio.sleep(0.2 if command == INSTALL else 0.0)
        return Ran(0, "", "")

    async def put(self, path: str, content: bytes, *, mode: int, owner: str) -> None:
        raise AssertionError("nothing is written here")

    async def close(self) -> None:
        """Nothing to let go of."""


async def test_a_step_that_was_carried_out_says_whose_time_it_was() -> None:
    steps = (Step("install etcd", INSTALL, debian=True), Step("start", "systemctl start"))
    said = list[Progress]()
    await carry_out([Plan("ams", (), steps)], {"ams": Installing()}, Release(""), said.append)
    assert [step.debian for step in said] == [True, False]
    went = spent(
        said,
        began_s=said[0].ended_s - said[0].took_s,
        stepped_s=said[0].ended_s - said[0].took_s,
        settled_s=said[1].ended_s,
        ended_s=said[1].ended_s,
    )
    assert went.packages_s == pytest.approx(said[0].took_s)
    assert went.packages_s >= 0.2
    assert went.steps_s == pytest.approx(said[1].ended_s - said[0].ended_s)
