"""Facts in, steps out."""

import hashlib
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from flightmode.config import Config, locations_of, parse
from flightmode.provision.facts import DebianCluster, Facts, Held, Unit, read, script
from flightmode.provision.plan import Plan, fence_restart, plan, summary
from flightmode.provision.wanted import Bundle, Wanted, firewall, wanted

TEXT = """
[cluster]
name = "main"
[nodes.ams]
host = "10.0.0.1"
[nodes.fra]
host = "10.0.0.2"
[nodes.wit]
kind = "witness"
host = "10.0.0.3"
[provision.apps.web]
host = "10.0.0.9"
[provision]
clients = ["192.168.7.0/24", "fd00::/8"]
"""
CONFIG = parse(TEXT, name="it")
BUNDLE = Bundle(
    {
        "flightmode.toml": b"x",
        "tls/ca.crt": b"ca",
        "tls/node.crt": b"crt",
        "tls/node.key": b"key",
        "secrets/app": b"secret",
    }
)
NOW_S = 1_000_000.0
RELEASE = "0.1.0-abc"
BARE = Facts(
    distribution="debian",
    version="12",
    machine="x86_64",
    free_mb=10_000,
    fsync_ms=1.0,
    clock_s=NOW_S,
)


def want(name: str, config: Config = CONFIG) -> Wanted:
    return wanted(config, name, BUNDLE)


def done(host: Wanted) -> Facts:
    """A host that has everything."""
    held = {path: Held(o.mode, o.owner, "") for path, o in host.directories.items()}
    for file in host.files:
        digest = hashlib.sha256(file.content).hexdigest()
        held[file.path] = Held(file.owned.mode, file.owned.owner, digest)
    units = {name: Unit("enabled", "active") for name in host.units}
    units |= {name: Unit("masked", "inactive") for name in host.masked}
    return replace(
        BARE,
        python="3.11",
        release=RELEASE,
        packages=frozenset({*host.packages, "chrony"}),
        kernel=host.kernel,
        users=frozenset({"root", "flightmode", "postgres"}),
        held=held,
        units=units,
        listeners=dict.fromkeys(host.ports, "postgres"),
        firewall=True,
    )


def planned(name: str, facts: Facts, config: Config = CONFIG) -> Plan:
    return plan(config, want(name, config), facts, RELEASE, NOW_S)


def titles(name: str, facts: Facts) -> list[str]:
    return [step.title for step in planned(name, facts).steps]


@pytest.mark.parametrize("name", ["ams", "wit", "web"])
def test_a_host_that_has_everything_needs_nothing(name: str) -> None:
    assert planned(name, done(want(name))) == Plan(name, (), ())


@pytest.mark.parametrize("name", ["ams", "wit", "web"])
def test_of_all_steps_only_the_packages_are_debian_s(name: str) -> None:
    debian = [step.title for step in planned(name, BARE).steps if step.debian]
    (installed,) = debian
    assert installed.startswith("install ")
    assert RELEASE not in installed


def test_a_bare_database_host_gets_everything_and_debian_s_services_never_start() -> None:
    told = titles("ams", BARE)
    masked = told.index("mask etcd.service postgresql.service")
    aside = told.index("no cluster of Debian's own")
    installed = told.index(
        "install etcd-server nftables python3 python3-venv postgresql-15 logrotate "
        "systemd-timesyncd"
    )
    assert masked < installed
    assert aside < installed
    started = [title.removeprefix("start ") for title in told if title.startswith("start ")]
    assert started == [
        "flightmode-firewall.service",
        "flightmode-etcd.service",
        "flightmode-fence.service",
        "flightmode-agent.service",
    ]


def test_a_witness_has_no_postgres_and_an_application_s_host_only_the_proxy() -> None:
    assert not any("postgres" in title for title in titles("wit", BARE))
    assert want("web").units == ("flightmode-proxy.socket", "flightmode-proxy.service")
    assert want("web").masked == ()


def test_an_edited_file_is_written_and_the_agent_begins_anew_but_never_the_fence() -> None:
    facts = done(want("ams"))
    edited = replace(
        facts,
        held={
            **facts.held,
            "/etc/flightmode/flightmode.toml": Held(0o600, "postgres:postgres", "0"),
        },
    )
    assert titles("ams", edited) == [
        "write /etc/flightmode/flightmode.toml",
        "restart flightmode-agent.service",
    ]
    unit = "/etc/systemd/system/flightmode-fence.service"
    other = replace(facts, held={**facts.held, unit: Held(0o644, "root:root", "0")})
    assert titles("ams", other) == [f"write {unit}", "systemd reads its units"]


def test_members_of_etcd_restart_one_after_the_other_and_are_waited_for() -> None:
    facts = done(want("ams"))
    copy = "/etc/flightmode/etcd-tls/node.crt"
    old = {**facts.held, copy: replace(facts.held[copy], digest="0")}
    (restart,) = (step for step in planned("ams", replace(facts, held=old)).steps if step.in_turn)
    assert restart.command == "systemctl restart flightmode-etcd.service"
    # The first start waits for neighbours that are not there yet.
    (first,) = (s for s in planned("ams", BARE).steps if s.title == "start flightmode-etcd.service")
    assert "--no-block" in first.command
    assert not first.in_turn


WRITTEN_S = 1_764_000_000.0


@pytest.mark.parametrize(
    ("path", "restarted"),
    [
        ("/etc/flightmode/flightmode.toml", "restart flightmode-agent.service"),
        ("/etc/flightmode/tls/node.crt", "restart flightmode-agent.service"),
        ("/etc/flightmode/etcd-tls/node.crt", "restart flightmode-etcd.service"),
        ("/opt/flightmode/current", "restart flightmode-agent.service"),
        ("/etc/flightmode/firewall.nft", "reload flightmode-firewall.service"),
    ],
)
def test_what_runs_since_before_its_file_was_written_begins_anew_in_the_next_run(
    path: str, restarted: str
) -> None:
    """The run that wrote it was cut off, or stopped because another node did not come back."""
    host = want("ams")
    began_s = dict.fromkeys(host.units, WRITTEN_S - 60)
    facts = replace(done(host), written_s={path: WRITTEN_S}, began_s=began_s)
    assert titles("ams", facts) == [restarted]
    # It began after that; and what is written and started at once counts as begun after.
    for later_s in (WRITTEN_S + 60, WRITTEN_S - 0.05):
        assert titles("ams", replace(facts, began_s=dict.fromkeys(host.units, later_s))) == []


def test_no_file_makes_a_fence_begin_anew() -> None:
    host = want("ams")
    written_s = dict.fromkeys((file.path for file in host.files), WRITTEN_S)
    began_s = dict.fromkeys(host.units, WRITTEN_S - 60)
    told = titles("ams", replace(done(host), written_s=written_s, began_s=began_s))
    assert told == [
        "reload flightmode-firewall.service",
        "restart flightmode-etcd.service",
        "restart flightmode-agent.service",
    ]


def test_a_unit_that_was_written_and_not_read_by_systemd_is_read_by_the_next_run() -> None:
    facts = replace(done(want("ams")), unread=frozenset({"flightmode-fence.service"}))
    assert titles("ams", facts) == ["systemd reads its units"]


def test_a_key_that_others_may_read_is_put_right() -> None:
    facts = done(want("ams"))
    key = "/etc/flightmode/tls/node.key"
    loose = replace(facts, held={**facts.held, key: replace(facts.held[key], mode=0o644)})
    assert titles("ams", loose)[0] == f"write {key}"


@pytest.mark.parametrize("name", ["ams", "wit", "web"])
def test_a_key_and_its_certificate_are_put_in_place_in_one_step(name: str) -> None:
    """Cut off between the two, a host would refuse every new connection until the next run."""
    facts = done(want(name))
    new = ("node.crt", "node.key")
    old = {
        path: replace(each, digest="0") if path.endswith(new) else each
        for path, each in facts.held.items()
    }
    steps = [step for step in planned(name, replace(facts, held=old)).steps if step.files]
    assert [step.title for step in steps] == [
        f"write /etc/flightmode/{room}/node.crt, node.key"
        for room in (("tls",) if name == "web" else ("tls", "etcd-tls"))
    ]
    assert all(len(step.files) == 2 for step in steps)


def test_another_release_restarts_what_can_be_restarted() -> None:
    older = replace(done(want("ams")), release="0.0.9-old")
    assert titles("ams", older) == [f"install {RELEASE}", "restart flightmode-agent.service"]


def test_a_service_that_has_stopped_is_started() -> None:
    facts = done(want("ams"))
    units = {**facts.units, "flightmode-etcd.service": Unit("enabled", "failed")}
    assert titles("ams", replace(facts, units=units)) == ["start flightmode-etcd.service"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(BARE, distribution="ubuntu", version="24.04"), "runs ubuntu 24.04"),
        (replace(BARE, machine="riscv64"), "is a riscv64"),
        (replace(BARE, free_mb=100), "has 100 MB free"),
        (replace(BARE, fsync_ms=80.0), "takes 80.0 ms to make 8 kB durable"),
        (replace(BARE, clock_s=NOW_S - 60), "has a clock that is off by -60.0 s"),
        (replace(BARE, listeners={5432: "postgres"}), "another program, postgres, listening"),
    ],
)
def test_a_host_that_does_not_fit_is_left_alone(facts: Facts, words: str) -> None:
    made = planned("ams", facts)
    assert made.steps == ()
    (problem,) = made.unfit
    assert words in problem


def test_a_slow_disk_does_not_matter_to_an_application_s_host() -> None:
    assert planned("web", replace(BARE, fsync_ms=80.0)).unfit == ()


def test_the_firewall_admits_who_needs_a_port_and_nobody_else() -> None:
    rules = firewall(CONFIG, "ams")
    assert "ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3 } tcp dport { 2380, 8009 } accept" in rules
    assert "ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3 } udp dport { 8009 } accept" in rules
    assert "udp dport 8009 drop" in rules
    everybody = "10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.9, 192.168.7.0/24"
    assert f"ip saddr {{ {everybody} }} tcp dport {{ 5432 }} accept" in rules
    assert "ip6 saddr { fd00::/8 } tcp dport { 5432 } accept" in rules
    assert "tcp dport { 2379, 2380, 8009, 5432 } drop" in rules
    assert "5432" not in firewall(CONFIG, "wit")


def test_the_log_of_postgres_is_rotated_where_it_is_written_and_by_who_owns_it() -> None:
    files = {file.path: file.content.decode() for file in want("ams").files}
    rotation = files["/etc/logrotate.d/flightmode"]
    assert f"\n{locations_of(CONFIG, 'ams').postgres_log} {{\n" in rotation
    assert "    copytruncate\n" in rotation, "Postgres keeps the file open"
    assert "    su postgres postgres\n" in rotation
    assert "/etc/logrotate.d/flightmode" not in {file.path for file in want("wit").files}


def test_what_is_to_be_done_is_told_once_for_all_hosts() -> None:
    lines = summary([planned("ams", BARE), planned("wit", BARE)])
    assert "start flightmode-etcd.service: ams, wit" in lines
    assert "start flightmode-fence.service: ams" in lines
    older = replace(done(want("ams")), release="0.0.9-old")
    assert summary([planned("ams", older)])[-1] == (
        "restart flightmode-agent.service, one host after the other: ams"
    )


# ------------------------------------------------------------------------------ the script

ANSWER = """\
os debian 12
machine x86_64
clock 1764000000.25
python 3.11
free 51234
release /opt/flightmode/0.1.0-abc
fence /opt/flightmode/0.0.9-old/bin/flightmode-fence (deleted)
fsync 1250000
package etcd-server
user root
user postgres
held 755 root:root - /etc/flightmode
held 600 postgres:postgres abcdef /etc/flightmode/flightmode.toml
held 700 postgres:postgres - /srv/two words
written 1764000000.1234567890 /etc/flightmode/flightmode.toml
written 1764000001.5 /srv/two words/it
unit flightmode-agent.service enabled active
unread flightmode-agent.service
began 1763999999.250 flightmode-agent.service
unit flightmode-etcd.service not-found inactive
unit flightmode-fence.service inactive
listener 5432 postgres
listener 6432 tmux: server
cluster 15 main auto active /var/lib/postgresql/15/main
cluster 13 removed auto inactive
cluster 15 other manual active /srv/two words
kernel vm.dirty_bytes 0
kernel vm.silent
end
"""


def test_the_answer_of_a_host_is_read() -> None:
    facts = read(ANSWER)
    assert facts is not None
    assert (facts.distribution, facts.version, facts.python) == ("debian", "12", "3.11")
    assert facts.fsync_ms == 1.25
    assert facts.release == RELEASE
    assert facts.packages == {"etcd-server"}
    assert facts.held["/etc/flightmode"] == Held(0o755, "root:root", "")
    assert facts.held["/etc/flightmode/flightmode.toml"].digest == "abcdef"
    assert facts.units["flightmode-fence.service"] == Unit("", "inactive")
    assert facts.held["/srv/two words"] == Held(0o700, "postgres:postgres", "")
    assert facts.listeners == {5432: "postgres", 6432: "tmux: server"}
    assert facts.clusters == (
        DEBIAN_S,
        DebianCluster("13", "removed", "auto", False, ""),
        DebianCluster("15", "other", "manual", True, "/srv/two words"),
    )
    assert facts.kernel == {"vm.dirty_bytes": "0", "vm.silent": ""}
    assert facts.fence == "0.0.9-old"
    assert facts.unread == {"flightmode-agent.service"}
    assert facts.began_s == {"flightmode-agent.service": 1763999999.25}
    assert facts.written_s == {
        "/etc/flightmode/flightmode.toml": 1764000000.123456789,
        "/srv/two words/it": 1764000001.5,
    }


def test_an_answer_that_was_cut_off_is_none() -> None:
    assert read(ANSWER.removesuffix("end\n")) is None
    assert read("") is None


def test_the_script_asks_for_every_file_and_unit_and_for_nothing_by_a_shell_s_leave() -> None:
    host = want("ams")
    text = script(host)
    for file in host.files:
        assert file.path in text
    assert "'" not in text.split("for port in ")[1].split(";")[0]


ADOPTING = CONFIG.model_copy(
    update={
        "postgres": CONFIG.postgres.model_copy(
            update={"data_dir": Path("/var/lib/postgresql/15/main")}
        )
    }
)
DEBIAN_S = DebianCluster("15", "main", "auto", True, "/var/lib/postgresql/15/main")


def test_a_server_that_is_taken_over_goes_on_until_all_is_there_and_stops_once() -> None:
    facts = replace(BARE, clusters=(DEBIAN_S,), listeners={5432: "postgres"})
    found = planned("ams", facts, ADOPTING)
    assert found.unfit == ()
    steps = {step.title: step for step in found.steps}
    told = list(steps)
    assert "--now" not in steps["mask etcd.service postgresql.service"].command
    stop = told.index("postgresql@15-main.service stops, for good")
    assert told[stop - 1] == "etcd answers, and the others are ready"
    assert found.steps[stop - 1].last
    assert told[stop + 1 :] == ["start flightmode-fence.service", "start flightmode-agent.service"]
    assert "the directory /var/lib/postgresql/15" in told


def test_another_server_on_our_port_is_left_alone_and_so_is_its_host() -> None:
    found = planned("ams", replace(BARE, listeners={5432: "postgres"}), ADOPTING)
    assert found.unfit == ("has another program, postgres, listening on port 5432",)


@pytest.mark.parametrize("beside", [(), (DEBIAN_S,)])
def test_somebody_s_own_server_on_another_port_is_never_stopped_by_a_mask(
    beside: tuple[DebianCluster, ...],
) -> None:
    """Masking postgresql.service stops every cluster of Debian's, whatever its port."""
    other = DebianCluster("15", "theirs", "auto", True, "/srv/theirs")
    found = planned("ams", replace(BARE, clusters=(*beside, other)), ADOPTING)
    assert found.steps == ()
    (problem,) = found.unfit
    assert "runs a PostgreSQL of somebody's own, postgresql@15-theirs.service (/srv/thei" in problem
    assert planned("wit", replace(BARE, clusters=(other,))).unfit == ()
    stopped = replace(other, active=False)
    assert planned("ams", replace(BARE, clusters=(*beside, stopped)), ADOPTING).unfit == ()
    # Once it is masked, a server that its owner starts by hand is no business of ours.
    assert planned("ams", replace(done(want("ams")), clusters=(other,))).steps == ()


def test_a_path_with_a_space_is_one_word_of_every_command() -> None:
    spaced = CONFIG.model_copy(
        update={
            "postgres": CONFIG.postgres.model_copy(
                update={
                    "data_dir": Path("/var/lib/postgresql/two words/main"),
                    "socket_dir": Path("/run/two words"),
                }
            )
        }
    )
    host = want("ams", spaced)
    steps = {step.title: step.command for step in planned("ams", BARE, spaced).steps}
    made = shlex.split(steps["the directory /var/lib/postgresql/two words"])
    assert made[-1] == "/var/lib/postgresql/two words"
    (fence,) = (word for word in shlex.split(fence_restart(spaced, host).command) if "psql" in word)
    assert "/run/two words" in shlex.split(fence)


def test_what_was_taken_over_once_is_ours() -> None:
    host = want("ams", ADOPTING)
    taken = replace(DEBIAN_S, start="disabled", active=False)
    assert planned("ams", replace(done(host), clusters=(taken,)), ADOPTING).steps == ()


def test_a_fence_is_replaced_only_when_that_is_asked_for_and_after_everything_else() -> None:
    host = want("ams")
    old = replace(done(host), fence="0.0.9-old", release="0.0.9-old")
    assert not any("fence" in step.title for step in planned("ams", old).steps)
    steps = plan(CONFIG, host, old, RELEASE, NOW_S, fence_too=True).steps
    assert [step.title for step in steps] == [
        f"install {RELEASE}",
        "restart flightmode-agent.service",
        "PostgreSQL restarts, under a new fence",
    ]
    new = replace(done(host), fence=RELEASE)
    assert plan(CONFIG, host, new, RELEASE, NOW_S, fence_too=True).steps == ()


def test_a_proxy_s_clients_go_over_to_the_new_one_unless_it_listens_elsewhere() -> None:
    host = want("web")
    old = replace(done(host), release="0.0.9-old")
    (*_, last) = planned("web", old).steps
    assert "USR2" in last.command
    (*_, last) = planned("web", replace(old, listeners={})).steps
    assert last.title == "restart flightmode-proxy.service, which listens elsewhere"
    begun = [words for words in last.command.split(" && ") if "start" in words]
    assert begun[-1] == "systemctl start flightmode-proxy.service", "after its socket"
    named = parse(f"{TEXT}[proxy]\nhost = 'localhost'\n", name="it")
    facts = replace(done(want("web", named)), release="0.0.9-old", listeners={})
    (*_, last) = planned("web", facts, named).steps
    assert last.command == "systemctl restart flightmode-proxy.service"


def test_a_proxy_of_before_sockets_keeps_its_port_until_it_ends() -> None:
    """systemd can't listen where it does; it will at the proxy's next start."""
    host = want("web")
    facts = done(host)
    socket, unit = (
        f"/etc/systemd/system/flightmode-proxy.{kind}" for kind in ("socket", "service")
    )
    held = {path: each for path, each in facts.held.items() if path != socket}
    held[unit] = replace(held[unit], digest="0")
    units = {**facts.units, "flightmode-proxy.socket": Unit("", "inactive")}
    told = titles("web", replace(facts, held=held, units=units))
    assert told == [
        f"write {socket}",
        f"write {unit}",
        "systemd reads its units",
        "enable at boot",
        "flightmode-proxy.service: a new one takes its clients over",
    ]
    units["flightmode-proxy.socket"] = Unit("enabled", "inactive")
    assert titles("web", replace(facts, units=units)) == []
    units["flightmode-proxy.service"] = Unit("enabled", "failed")
    assert titles("web", replace(facts, units=units)) == [
        "start flightmode-proxy.socket",
        "start flightmode-proxy.service",
    ]


def test_systemd_may_listen_for_the_proxy_and_for_nobody_else_there() -> None:
    host = want("web")
    ours = replace(done(host), listeners={6432: "systemd"})
    assert planned("web", ours) == Plan("web", (), ())
    theirs = replace(BARE, listeners={6432: "systemd"})
    assert planned("web", theirs).unfit == ("has another program, systemd, listening on port 6432",)


def test_a_clock_is_kept_right_by_whoever_does_it_already() -> None:
    host = want("web")
    without = replace(done(host), packages=frozenset(host.packages))
    assert "install systemd-timesyncd" in titles("web", without)
    for name in ("chrony", "ntpsec", "systemd-timesyncd"):
        assert titles("web", replace(without, packages=without.packages | {name})) == []


def test_the_kernel_is_told_where_it_may_be_told() -> None:
    as_it_comes = {"vm.overcommit_memory": "0", "vm.overcommit_ratio": "50", "vm.dirty_bytes": "0"}
    whole = done(want("ams"))
    assert "settings of the kernel" in titles("ams", replace(whole, kernel=as_it_comes))
    assert titles("ams", replace(whole, kernel={})) == [], "a container may not"
    assert "vm.overcommit_memory" not in want("wit").kernel, "only PostgreSQL needs that"
    left = parse(f"{TEXT}tune_kernel = false\nwatchdog = false\n", name="it")
    assert want("ams", left).kernel == {}


def test_a_watchdog_is_used_where_there_is_one() -> None:
    def fence(config: Config) -> str:
        files = {file.path: file.content.decode() for file in want("ams", config).files}
        return files["/etc/systemd/system/flightmode-fence.service"]

    assert "--watchdog /dev/watchdog" in fence(CONFIG)
    assert "watchdog" not in fence(parse(f"{TEXT}watchdog = false\n", name="it"))
