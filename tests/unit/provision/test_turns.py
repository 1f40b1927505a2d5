"""Restarts on a cluster that serves: who comes after whom, and what the next one waits for."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flightmode.config import parse
from flightmode.errors import FlightmodeError, HostUnreachable, RequestUnfinished, StepFailed
from flightmode.provision.plan import TAKEN_OVER_S, Plan, proxy_takeover
from flightmode.provision.turns import etcd_apart, in_two, one_by_one, order, restarts_etcd, worse
from tests.unit.provision.test_plan import BARE, CONFIG, TEXT, done, planned, want
from tests.unit.provision.test_serving import node, status, with_node

AGENT = "restart flightmode-agent.service"
NODES = ("ams", "fra", "wit")


def edited(*names: str) -> list[Plan]:
    """The plans of machines that have everything but an older Flightmode."""
    return [planned(name, replace(done(want(name)), release="0.0.9-old")) for name in names]


def test_what_restarts_agents_and_etcd_comes_after_all_else() -> None:
    (plan,) = edited("ams")
    at_once, later = in_two(plan)
    assert [step.title for step in at_once.steps] == ["install 0.1.0-abc"]
    assert [step.title for step in later.steps] == [AGENT]
    assert (at_once.done, at_once.of) == (0, 2), "they are numbered through"
    assert (later.done, later.of) == (1, 2)


def test_a_cluster_that_does_not_exist_yet_is_made_on_all_machines_at_once() -> None:
    for name in (*NODES, "web"):
        at_once, later = in_two(planned(name, BARE))
        assert later.steps == ()
        assert at_once.steps == planned(name, BARE).steps


def test_a_proxy_and_a_firewall_wait_for_nobody() -> None:
    _, later = in_two(*edited("web"))
    assert later.steps == ()
    host = want("ams")
    facts = replace(
        done(host),
        written_s={"/etc/flightmode/firewall.nft": 9.0},
        began_s={"flightmode-firewall.service": 1.0},
    )
    at_once, later = in_two(planned("ams", facts))
    assert [step.title for step in at_once.steps] == ["reload flightmode-firewall.service"]
    assert later.steps == ()


def test_a_restart_of_etcd_is_known_as_one() -> None:
    host = want("fra")
    copy = "/etc/flightmode/etcd-tls/node.crt"
    facts = replace(done(host), held={p: h for p, h in done(host).held.items() if p != copy})
    _, later = in_two(planned("fra", facts))
    assert restarts_etcd(later)
    assert not restarts_etcd(in_two(*edited("fra"))[1])
    assert not restarts_etcd(planned("fra", BARE)), "its first start waits for nobody"


def test_where_etcd_does_not_answer_its_members_restart_apart_from_the_agents() -> None:
    host = want("fra")
    old = ("/etc/flightmode/etcd-tls/node.crt", "/etc/flightmode/tls/node.crt")
    facts = replace(done(host), held={p: h for p, h in done(host).held.items() if p not in old})
    at_once, later = in_two(planned("fra", facts))
    etcd, others = etcd_apart(later)
    assert [step.title for step in etcd.steps] == ["restart flightmode-etcd.service"]
    assert [step.title for step in others.steps] == [AGENT]
    assert (at_once.done, etcd.done, others.done) == (0, 2, 3)
    assert {at_once.of, etcd.of, others.of} == {4}


def test_the_primary_is_last_and_without_one_the_order_is_that_of_the_file() -> None:
    assert order(CONFIG, "ams") == ["wit", "fra", "ams"]
    assert order(CONFIG, "fra") == ["wit", "ams", "fra"]
    assert order(CONFIG, None) == ["wit", "ams", "fra"]
    three = parse(TEXT.replace('kind = "witness"\n', ""), name="it")
    assert order(three, "fra") == ["ams", "wit", "fra"]


# ---------------------------------------------------------------------- each at its turn


class Run:
    """A run over machines of which some do not come back, or whose step fails."""

    def __init__(self, *orders: Sequence[str], lost: dict[str, FlightmodeError] | None = None):
        self.orders, self.lost, self.told = list(orders), lost or {}, list[str]()

    async def ordered(self) -> Sequence[str]:
        return self.orders.pop(0) if len(self.orders) > 1 else self.orders[0]

    async def bring(self, plan: Plan) -> None:
        self.told += [f"{plan.name}: {step.title}" for step in plan.steps]
        if isinstance(failure := self.lost.get(plan.name), StepFailed | HostUnreachable):
            raise failure

    async def back(self, name: str) -> None:
        if isinstance(failure := self.lost.get(name), RequestUnfinished):
            raise failure
        self.told.append(f"{name} is back")

    async def over(self, *names: str) -> list[str]:
        plans = [in_two(plan)[1] for plan in edited(*names)]
        await one_by_one(plans, self.ordered, self.bring, self.back)
        return self.told


async def test_each_restarts_when_the_one_before_is_back() -> None:
    assert await Run(["wit", "fra", "ams"]).over("ams", "fra", "wit", "web") == [
        f"wit: {AGENT}",
        "wit is back",
        f"fra: {AGENT}",
        "fra is back",
        f"ams: {AGENT}",
        "ams is back",
    ]


async def test_a_primary_that_became_it_meanwhile_is_last_as_well() -> None:
    told = await Run(["wit", "fra", "ams"], ["wit", "ams", "fra"]).over(*NODES)
    assert [line for line in told if line.endswith("is back")] == [
        "wit is back",
        "ams is back",
        "fra is back",
    ]


async def test_after_one_that_does_not_come_back_nothing_restarts_and_the_error_says_so() -> None:
    lost = RequestUnfinished(
        "the cluster is not whole after 120 s: nothing is heard of fra", hint="flightmode status"
    )
    run = Run(["wit", "fra", "ams"], lost={"fra": lost})
    with pytest.raises(RequestUnfinished) as failure:
        await run.over(*NODES)
    assert failure.value.message == (
        "fra was restarted, and the cluster is not whole after 120 s: nothing is heard of fra; "
        "not restarted: ams; another run goes on from here"
    )
    assert failure.value.hint_text == "flightmode status"
    assert run.told == [f"wit: {AGENT}", "wit is back", f"fra: {AGENT}"]


@pytest.mark.parametrize("kind", [StepFailed, HostUnreachable])
async def test_after_a_restart_that_fails_nothing_restarts_either(
    kind: type[StepFailed | HostUnreachable],
) -> None:
    run = Run(["wit", "fra", "ams"], lost={"wit": kind("wit: no")})
    with pytest.raises(kind, match="wit: no; not restarted: ams, fra"):
        await run.over(*NODES)
    assert run.told == [f"wit: {AGENT}"]


# -------------------------------------------------------------------- as whole as before


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (status(), ()),
        (status(writes=None), ("why",)),
        (status(store_reachable=False), ("etcd does not answer ams",)),
        (with_node("wit", heard=False), ("nothing is heard of wit",)),
        (with_node("fra", streaming=False), ("fra does not follow",)),
        (with_node("fra", sync=False), ("no standby holds every commit",)),
    ],
)
def test_what_the_cluster_had_it_has_again(now: dict[str, Any], words: tuple[str, ...]) -> None:
    assert worse(status(), now) == words


def test_what_it_lacked_before_is_not_waited_for() -> None:
    without = with_node("fra", heard=False, streaming=False, sync=False)
    assert worse(without, without) == ()
    both = with_node("fra", heard=False, streaming=False, sync=False)
    both["nodes"][2]["heard"] = False
    assert worse(without, both) == ("nothing is heard of wit",)
    for before in (None, status(writes=None)):
        assert worse(before, status(writes=None)) == ()


def test_after_a_failover_the_old_primary_follows_before_the_next_one_restarts() -> None:
    over = status(writes="fra")
    assert worse(status(), over) == ("ams does not follow", "no standby holds every commit")
    over["nodes"][0] = node("ams", streaming=True, sync=True)
    assert worse(status(), over) == ()


def test_a_machine_that_is_just_coming_is_not_waited_for() -> None:
    """It may need the others to restart first."""
    now = status()
    now["nodes"].append(node("ber", heard=False))
    assert worse(status(), now) == ()


# ----------------------------------------------------------------------- a proxy's heir

SYSTEMCTL = """#!/bin/sh
case "$1" in
    show) cat "$HERE/pid" ;;
    kill) [ "$HEIR" = none ] || echo 2 > "$HERE/pid" ;;
esac
"""


@pytest.mark.parametrize(("heir", "ended"), [("comes", 0), ("none", 1)])
def test_a_proxy_s_step_ends_when_another_one_is_the_service_or_says_that_none_is(
    heir: str, ended: int, tmp_path: Path
) -> None:
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    (tmp_path / "pid").write_text("1\n")
    command = proxy_takeover().command
    assert f"timeout {TAKEN_OVER_S} " in command
    told = subprocess.run(
        ["sh", "-c", command.replace(f"timeout {TAKEN_OVER_S} ", "timeout 1 ")],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HERE": str(tmp_path), "HEIR": heir},
    )
    assert told.returncode == ended
    assert ("the one that runs goes on" in told.stderr) is bool(ended)
