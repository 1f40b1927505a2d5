"""What is old on a host and what comes next; which Postgres restarts when."""

import pytest

from flightmode.errors import RequestWrong
from flightmode.provision.restarts import Restart, Turn, order, shrinks
from flightmode.provision.system import Age, plan, read
from tests.unit.provision.test_plan import CONFIG, want

YOUNG = Age((), frozenset(), reboot=False)
FENCE = "flightmode-fence.service"


def titles(name: str, age: Age) -> list[str]:
    return [step.title for step in plan(CONFIG, want(name), age).steps]


def test_the_answer_of_a_host_is_read_and_one_that_was_cut_off_is_none() -> None:
    told = "package libc6\npackage bash\nstale flightmode-agent.service\nreboot\nend\n"
    stale = frozenset({"flightmode-agent.service"})
    assert read(told) == Age(("bash", "libc6"), stale, reboot=True)
    assert read("end\n") == YOUNG
    assert read("package bash\n") is None
    assert read("") is None


def test_nothing_is_done_to_a_host_with_nothing_old() -> None:
    assert titles("ams", YOUNG) == []


def test_packages_come_before_what_they_make_old() -> None:
    age = Age(("postgresql-15",), frozenset({FENCE}), reboot=True)
    assert titles("ams", age) == ["upgrade postgresql-15"]


def test_a_reboot_restarts_everything_at_once() -> None:
    (step,) = plan(CONFIG, want("ams"), Age((), frozenset({FENCE}), reboot=True)).steps
    assert step.reboots
    assert "systemctl reboot" in step.command


def test_an_applications_machine_is_never_rebooted() -> None:
    stale = frozenset({"flightmode-proxy.service"})
    (step,) = plan(CONFIG, want("web"), Age((), stale, reboot=True)).steps
    assert not step.reboots
    assert "USR2" in step.command


def test_what_runs_old_files_restarts_in_the_order_of_a_boot_and_is_waited_for() -> None:
    units = frozenset({"flightmode-agent.service", FENCE, "flightmode-etcd.service"})
    assert titles("fra", Age((), units, reboot=False)) == [
        "restart flightmode-etcd.service",
        "PostgreSQL restarts, under a new fence",
        "restart flightmode-agent.service",
    ]
    fence = plan(CONFIG, want("fra"), Age((), units, reboot=False)).steps[1]
    assert "SELECT 1" in fence.command


def test_no_package_is_ever_removed_by_an_upgrade() -> None:
    (step,) = plan(CONFIG, want("ams"), Age(("bash",), frozenset(), reboot=False)).steps
    assert " upgrade --with-new-pkgs " in step.command
    assert "dist-upgrade" not in step.command
    assert "dpkg --configure -a" in step.command


def test_a_setting_that_grows_is_on_the_standbys_before_anybody_leads_with_it() -> None:
    waiting = {"ams": ("max_connections",), "fra": ("max_connections",)}
    assert not shrinks({"max_connections": 1})
    assert order(waiting, "ams", primary_first=False) == [
        Restart(Turn.RESTART, "fra"),
        Restart(Turn.SWITCH_OVER, "ams"),
    ]


def test_a_setting_that_shrinks_is_on_the_primary_first_which_stays_where_it_is() -> None:
    waiting = {"ams": ("max_connections",), "fra": ("max_connections",)}
    assert shrinks({"max_connections": -1, "max_wal_senders": 0})
    assert order(waiting, "fra", primary_first=True) == [
        Restart(Turn.RESTART, "fra"),
        Restart(Turn.RESTART, "ams"),
    ]


def test_one_that_grows_while_another_shrinks_is_refused_by_name() -> None:
    with pytest.raises(RequestWrong, match="max_connections would grow and max_wal_senders shrink"):
        shrinks({"max_connections": 1, "max_wal_senders": -1})


def test_only_who_waits_is_restarted() -> None:
    assert order({"ams": (), "fra": ()}, "ams", primary_first=False) == []
    assert order({"ams": (), "fra": ("shared_buffers",)}, "ams", primary_first=False) == [
        Restart(Turn.RESTART, "fra")
    ]
    assert order({"ams": ("shared_buffers",), "fra": ()}, "ams", primary_first=False) == [
        Restart(Turn.SWITCH_OVER, "ams")
    ]
