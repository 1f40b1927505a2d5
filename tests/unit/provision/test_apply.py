"""Steps on several hosts at once, and those that never are."""

import asyncio
import time

import pytest

from flightmode.errors import HostUnreachable, StepFailed
from flightmode.provision.apply import TOLD_AFTER_S, Progress, carry_out, look
from flightmode.provision.plan import Plan, Step
from flightmode.provision.wanted import File, Owned, wanted
from flightmode.provision.wheels import Release
from flightmode.remote.port import Ran
from tests.unit.provision.test_plan import BUNDLE, CONFIG

RELEASE = Release("0.1.0-abc")


class Host:
    """A host whose commands take a turn of the loop each; `busy` counts them over all hosts."""

    def __init__(self, shared: dict[str, int], fails: str = "") -> None:
        self.shared, self.fails, self.ran = shared, fails, list[str]()

    async def run(
        self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
    ) -> Ran:
        self.shared["busy"] += 1
        self.shared["most"] = max(self.shared["most"], self.shared["busy"])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.shared["busy"] -= 1
        self.ran.append(command)
        return Ran(1, "", "no room") if command == self.fails else Ran(0, "", "")

    async def put(self, path: str, content: bytes, *, mode: int, owner: str) -> None:
        self.ran.append(path)

    async def close(self) -> None:
        """Nothing to let go of."""


async def together(step: Step, fails: str = "") -> tuple[dict[str, int], list[Host]]:
    shared = {"busy": 0, "most": 0}
    hosts = [Host(shared, fails if number == 1 else "") for number in range(3)]
    plans = [Plan(f"n{number}", (), (step,)) for number in range(3)]
    said: list[Progress] = []
    remotes = {f"n{number}": host for number, host in enumerate(hosts)}
    await carry_out(plans, remotes, RELEASE, said.append)
    assert [(each.ended, each.number, each.of) for each in said] == [(True, 1, 1)] * 3
    return shared, hosts


async def test_hosts_are_brought_along_side_by_side() -> None:
    shared, _ = await together(Step("install", "apt-get install"))
    assert shared["most"] == 3


async def test_a_step_that_fails_says_host_step_and_what_was_printed() -> None:
    with pytest.raises(StepFailed, match="n1: install: status 1: no room"):
        await together(Step("install", "apt-get install"), fails="apt-get install")


async def test_a_step_that_takes_long_is_told_of_before_it_has_ended() -> None:
    class Lasting(Host):
        async def run(
            self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
        ) -> Ran:
            await told.wait()
            return Ran(0, "/srv/data.of-then\n", "")

    told, said = asyncio.Event(), list[Progress]()

    def say(step: Progress) -> None:
        said.append(step)
        told.set()

    host = Lasting({"busy": 0, "most": 0})
    steps = (Step("install", "apt-get install"), Step("what is kept", "ls", tells=True))
    async with asyncio.timeout(TOLD_AFTER_S * 10):
        await carry_out([Plan("ams", (), steps)], {"ams": host}, RELEASE, say)
    assert [(each.title, each.ended, each.said) for each in said] == [
        ("install", False, ""),
        ("install", True, ""),
        ("what is kept", True, "/srv/data.of-then\n"),
    ]


class Waiting(Host):
    """A host on which nothing ends by itself."""

    async def run(
        self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
    ) -> Ran:
        self.ran.append(command)
        await asyncio.Event().wait()
        raise AssertionError("it ended")


async def test_nobody_waits_for_a_host_that_has_failed() -> None:
    """A witness whose etcd waits for two others, and one of those has no such package."""
    shared = {"busy": 0, "most": 0}
    bad, good = Host(shared, "apt-get install"), Waiting(shared)
    plans = [
        Plan("ams", (), (Step("install", "apt-get install"), Step("next", "never"))),
        Plan("wit", (), (Step("start", "systemctl restart agent", meets=True),)),
    ]
    with pytest.raises(StepFailed, match="ams: install: status 1: no room"):
        async with asyncio.timeout(5):
            await carry_out(plans, {"ams": bad, "wit": good}, RELEASE, lambda step: None)
    assert bad.ran == ["apt-get install"]
    assert good.ran == ["systemctl restart agent"]


async def test_what_comes_last_begins_when_nothing_else_is_left_anywhere() -> None:
    shared = {"busy": 0, "most": 0}
    order = list[str]()

    class Noting(Host):
        async def run(
            self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
        ) -> Ran:
            order.append(command)
            return await super().run(command, stdin=stdin, within_s=within_s)

    slow = tuple(Step("install", f"slow {number}") for number in range(20))
    plans = [
        Plan("ams", (), (Step("install", "quick"), Step("take over", "last", last=True))),
        Plan("fra", (), slow),
    ]
    hosts = {"ams": Noting(shared), "fra": Noting(shared)}
    await carry_out(plans, hosts, RELEASE, lambda step: None)
    assert order[-1] == "last"
    assert len(order) == 22
    with pytest.raises(StepFailed):
        async with asyncio.timeout(5):
            await carry_out(
                plans,
                {"ams": Noting(shared), "fra": Noting(shared, "slow 3")},
                RELEASE,
                lambda step: None,
            )
    assert order[-1] == "slow 3"


KEY = Owned(0o600, "postgres:postgres")
PAIR = tuple(
    File(f"/etc/flightmode/tls/node.{end}", end.encode(), KEY, together="tls")
    for end in ("crt", "key")
)


async def test_files_that_belong_together_are_all_there_before_one_is_replaced() -> None:
    host = Host({"busy": 0, "most": 0})
    plan = Plan("ams", (), (Step("write", files=PAIR),))
    await carry_out([plan], {"ams": host}, RELEASE, lambda step: None)
    (*drafts, placed) = host.ran
    paths = [file.path for file in PAIR]
    assert drafts == [f"{path}.flightmode-draft" for path in paths]
    assert placed == " && ".join(f"mv -fT {path}.flightmode-draft {path}" for path in paths)


async def test_a_link_that_is_lost_between_them_has_replaced_none() -> None:
    class Lost(Host):
        async def put(self, path: str, content: bytes, *, mode: int, owner: str) -> None:
            if "node.key" in path:
                raise HostUnreachable("the link broke")
            await super().put(path, content, mode=mode, owner=owner)

    host = Lost({"busy": 0, "most": 0})
    plan = Plan("ams", (), (Step("write", files=PAIR),))
    with pytest.raises(HostUnreachable):
        await carry_out([plan], {"ams": host}, RELEASE, lambda step: None)
    assert host.ran == [f"{PAIR[0].path}.flightmode-draft"]


async def test_a_file_by_itself_is_written_at_once() -> None:
    host = Host({"busy": 0, "most": 0})
    plan = Plan("ams", (), (Step("write", files=PAIR[:1]),))
    await carry_out([plan], {"ams": host}, RELEASE, lambda step: None)
    assert host.ran == [PAIR[0].path]


class Slow(Host):
    """A host that takes its time to answer, and whose clock is off."""

    def __init__(self, off_s: float) -> None:
        super().__init__({"busy": 0, "most": 0})
        self.off_s = off_s

    async def run(
        self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
    ) -> Ran:
        clock_s = time.time() + self.off_s
        await asyncio.sleep(0.3)
        return Ran(0, f"os debian 12\nclock {clock_s:.6f}\nend\n", "")


@pytest.mark.parametrize("off_s", [0.0, -60.0, 60.0])
async def test_a_slow_answer_is_not_taken_for_a_clock_that_is_off(off_s: float) -> None:
    host = wanted(CONFIG, "web", BUNDLE)
    facts, now_s = await look(Slow(off_s), host)
    assert facts.clock_s - now_s == pytest.approx(off_s, abs=0.35 if off_s else 1e-5)
