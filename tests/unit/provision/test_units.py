"""The units of systemd: what goes before what, also when a host goes down."""

import shlex
from dataclasses import replace

import pytest

from flightmode.config import parse
from flightmode.provision.facts import Unit, read, script
from flightmode.provision.plan import plan
from flightmode.provision.units import (
    FIREWALL_OFF,
    agent_unit,
    etcd_unit,
    fence_unit,
    firewall_unit,
    quoted,
)
from tests.unit.provision.test_plan import BARE, CONFIG, NOW_S, RELEASE, TEXT, done, planned, want


def after(text: str) -> set[str]:
    """What a unit is started after, and so stopped before."""
    lines = [line for line in text.splitlines() if line.startswith("After=")]
    return {name for line in lines for name in line.removeprefix("After=").split()}


LOAD = "/usr/sbin/nft -f /etc/flightmode/firewall.nft"
UNITS = {
    "etcd": etcd_unit(CONFIG, "ams", "flightmode"),
    "fence": fence_unit(CONFIG, "ams"),
    "agent": agent_unit("ams", "postgres", fenced=True),
}


@pytest.mark.parametrize("name", UNITS)
def test_the_network_goes_after_everything_that_still_has_to_say_something(name: str) -> None:
    assert "network.target" in after(UNITS[name])


@pytest.mark.parametrize("name", UNITS)
def test_nothing_listens_before_the_firewall_and_nothing_gives_up(name: str) -> None:
    assert "flightmode-firewall.service" in after(UNITS[name])
    assert "StartLimitIntervalSec=0" in UNITS[name].splitlines()
    assert f"flightmode-{name}.service" in firewall_unit()


@pytest.mark.parametrize("name", UNITS)
def test_each_may_gain_no_rights_and_change_no_kernel(name: str) -> None:
    for line in ("NoNewPrivileges=yes", "ProtectKernelModules=yes", "RestrictSUIDSGID=yes"):
        assert line in UNITS[name].splitlines()


def test_the_parent_of_postgres_hides_no_files_from_it() -> None:
    """Its data, its socket and the file of a COPY may be in /home, in /tmp, anywhere."""
    lines = UNITS["fence"].splitlines()
    assert not [line for line in lines if line.startswith(("ProtectHome", "PrivateTmp"))]
    assert "ProtectControlGroups=yes" not in lines, "it ends PostgreSQL by its control group"


@pytest.mark.parametrize("name", ["etcd", "agent"])
def test_a_firewall_that_did_not_load_at_boot_keeps_them_from_starting(name: str) -> None:
    """And nothing stops them when somebody restarts it, as `Requires=` would."""
    service = UNITS[name].partition("[Service]")[2].splitlines()
    asked = next(line for line in service if line.startswith("ExecStartPre="))
    assert asked == f"ExecStartPre=+{LOAD}", "they are no root, and `-` would start them anyway"
    assert service.index(asked) < next(
        number for number, line in enumerate(service) if line.startswith("ExecStart=")
    )
    assert "Requires=" not in UNITS[name]
    assert "Restart=on-failure" in firewall_unit()


def test_new_rules_are_judged_before_they_are_written_and_replace_the_old_ones_at_once() -> None:
    facts = done(want("ams"))
    wider = parse(TEXT.replace('"fd00::/8"', '"fd00::/8", "10.9.0.0/16"'), name="it")
    host = want("ams", wider)
    steps = plan(wider, host, facts, RELEASE, NOW_S).steps
    assert [step.title for step in steps] == [
        "judge /etc/flightmode/firewall.nft",
        "write /etc/flightmode/firewall.nft",
        "reload flightmode-firewall.service",
    ]
    (text,) = (file.content for file in host.files if file.path.endswith("firewall.nft"))
    printf, _, rules, pipe, *judge = shlex.split(steps[0].command)
    assert (printf, pipe, judge) == ("printf", "|", ["nft", "-c", "-f", "-"])
    assert rules.encode() == text
    assert b"10.9.0.0/16" in text
    # One file is one transaction of nftables: the old table goes when the new one is there.
    assert steps[2].command == "systemctl reload flightmode-firewall.service"
    assert "ExecReload=/usr/sbin/nft -f /etc/flightmode/firewall.nft" in firewall_unit()
    assert text.index(b"delete table") < text.index(b"chain input")


def test_a_firewall_that_restarts_has_no_moment_without_rules() -> None:
    """systemd runs what stops a unit for its restart too (systemd.service(5), ExecStop=)."""
    lines = firewall_unit().splitlines()
    assert not [line for line in lines if line.startswith(("ExecStop", "ExecStopPost"))]
    assert f"# {FIREWALL_OFF}" in lines, "whoever stops it and wonders finds what to do"
    started = [line for line in lines if line.startswith(("ExecStart=", "ExecReload="))]
    assert {line.partition("=")[2] for line in started} == {LOAD}


def test_rules_that_somebody_has_flushed_come_back() -> None:
    """With the next start of etcd or the agent, with Debian's own service, and with a run."""
    facts = replace(done(want("ams")), firewall=False)
    (step,) = planned("ams", facts).steps
    assert step.command == "systemctl reload flightmode-firewall.service"
    assert not step.in_turn
    assert planned("web", replace(done(want("web")), firewall=False)).steps == ()
    lines = firewall_unit().splitlines()
    assert "nftables.service" in after(firewall_unit())
    assert {"PartOf=nftables.service", "ReloadPropagatedFrom=nftables.service"} <= set(lines)
    (before,) = (line for line in lines if line.startswith("Before="))
    assert "nftables.service" not in before


def test_a_look_asks_for_the_rules_and_not_for_their_unit() -> None:
    assert "nft list table inet flightmode_firewall" in script(want("ams"))
    flushed, loaded = read("end\n"), read("firewall\nend\n")
    assert flushed is not None
    assert loaded is not None
    assert (flushed.firewall, loaded.firewall) == (False, True)


def test_another_unit_of_the_firewall_s_takes_no_rule_away() -> None:
    facts = done(want("ams"))
    unit = "/etc/systemd/system/flightmode-firewall.service"
    facts.held[unit] = facts.held["/etc/flightmode/tls/ca.crt"]  # type: ignore[index]
    assert [step.title for step in planned("ams", facts).steps] == [
        f"write {unit}",
        "systemd reads its units",
    ]


def test_a_first_firewall_is_judged_after_its_program_has_come() -> None:
    told = [step.title for step in planned("ams", BARE).steps]
    installed = next(number for number, title in enumerate(told) if title.startswith("install etc"))
    assert installed < told.index("judge /etc/flightmode/firewall.nft")
    assert Unit("enabled", "active") == done(want("ams")).units["flightmode-firewall.service"]


@pytest.mark.parametrize(
    ("host", "listens"),
    [
        ("127.0.0.1", "127.0.0.1:6432"),
        ("::1", "[::1]:6432"),
        ("localhost", None),
    ],
)
def test_systemd_listens_for_a_proxy_whose_address_it_knows(host: str, listens: str | None) -> None:
    config = parse(f"{TEXT}[proxy]\nhost = '{host}'\n", name="it")
    files = {file.path: file.content.decode() for file in want("web", config).files}
    socket = files.get("/etc/systemd/system/flightmode-proxy.socket")
    service = files["/etc/systemd/system/flightmode-proxy.service"].splitlines()
    assert ("Sockets=flightmode-proxy.socket" in service) is (listens is not None)
    if listens is None:
        assert socket is None
    else:
        assert f"ListenStream={listens}" in str(socket).splitlines()


def test_a_proxy_that_ends_is_given_the_time_that_it_gives_its_clients() -> None:
    config = parse(f"{TEXT}[proxy]\nstop_grace_s = 600.5\n", name="it")
    files = {file.path: file.content.decode() for file in want("web", config).files}
    service = files["/etc/systemd/system/flightmode-proxy.service"].splitlines()
    assert "TimeoutStopSec=621" in service


@pytest.mark.parametrize(
    ("word", "in_a_unit"),
    [
        ("--name=ams", "--name=ams"),
        ("--data-dir=/srv/two words", '"--data-dir=/srv/two words"'),
        ("50%", "50%%"),
        ('say "$HOME"', '"say \\"$$HOME\\""'),
    ],
)
def test_a_word_stays_a_word_in_a_unit(word: str, in_a_unit: str) -> None:
    assert quoted(word) == in_a_unit
