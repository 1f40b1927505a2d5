"""The difference between what a host has and what it shall have, as steps in their order.  Pure."""

import hashlib
import os.path
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from flightmode.config import Config
from flightmode.provision.facts import CLOCKS, CURRENT, DebianCluster, Facts
from flightmode.provision.parameters import judging
from flightmode.provision.takeover import away, taken_over
from flightmode.provision.wanted import (
    AGENT,
    ETCD,
    FENCE,
    FIREWALL,
    KERNEL,
    OWN_USER,
    PROXY,
    PROXY_SOCKET,
    TOML,
    File,
    Role,
    Wanted,
)

SUPPORTED = (("debian", "12"), ("debian", "13"))
MACHINES = ("x86_64", "aarch64")
FREE_MB = 2048
_POSTGRESQL = "postgresql.service"
CLOSE_S = 0.1
"""The start of a process is known to a hundredth of a second; what happens to it is further apart
than this from what was written before."""
TAKEN_OVER_S = 60
"""A proxy that is to take over learns who is primary first, which may take 15 s."""
CLOCK_OFF_S = 2.0
"""Certificates and people go by wall clocks; leases do not."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do on a host; doing it twice does no harm."""

    title: str
    command: str = ""
    """A shell command; empty for a step that writes `files` or brings the release."""
    files: tuple[File, ...] = ()
    """To be put in place at once, or none of them."""
    release: bool = False
    in_turn: bool = False
    """On a cluster that serves only when the host before is back (`turns`): two members of etcd
    that restart together are no quorum, and agents that do renew no lease."""
    meets: bool = False
    """It ends only when enough other hosts are as far: there is no etcd without a quorum."""
    last: bool = False
    """It begins only when nothing else is left to do on any host."""
    reboots: bool = False
    """The host is gone soon after it, and comes back."""
    tells: bool = False
    """What it prints is for whoever typed the command."""
    debian: bool = False
    """It installs packages of Debian's: how long that takes is not up to us."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to do on one host."""

    name: str
    unfit: tuple[str, ...]
    """Why nothing may be done here; then there are no steps."""
    steps: tuple[Step, ...]
    done: int = 0
    """So many of its steps were done before these."""
    of: int = 0
    """So many there are with those before and after; 0: these are all."""


def plan(
    config: Config,
    wanted: Wanted,
    facts: Facts,
    release: str,
    now_s: float,
    *,
    fence_too: bool = False,
) -> Plan:
    """What to do.  `release`: the name of Flightmode's wheels; `now_s`: our wall clock.

    `fence_too`: a fence of another release is replaced, which restarts Postgres.
    """
    unfit = _unfit(config, wanted, facts, now_s)
    if unfit:
        return Plan(wanted.name, unfit, ())
    steps = [
        *_masks(wanted, facts),
        *_packages(wanted, facts),
        *_user(facts),
        *_directories(wanted, facts),
        *_parameters(config, wanted, facts),
        *_files(wanted, facts),
        *_kernel(wanted, facts),
        *_release(facts, release),
        *_units(wanted, facts, release),
        *(_fence(config, wanted, facts, release) if fence_too else ()),
    ]
    return Plan(wanted.name, (), tuple(steps))


def _unfit(config: Config, wanted: Wanted, facts: Facts, now_s: float) -> tuple[str, ...]:
    problems = []
    if (facts.distribution, facts.version) not in SUPPORTED:
        problems.append(
            f"runs {facts.distribution} {facts.version}; Flightmode is made for Debian 12 and 13"
        )
    if facts.machine not in MACHINES:
        problems.append(f"is a {facts.machine}; there are no programs for it")
    if facts.free_mb < FREE_MB:
        problems.append(f"has {facts.free_mb} MB free in /var/lib; {FREE_MB} MB are needed")
    slow = facts.fsync_ms > config.provision.fsync_max_ms
    if slow and wanted.role is not Role.APP:
        limit = config.provision.fsync_max_ms
        problems.append(
            f"takes {facts.fsync_ms:.1f} ms to make 8 kB durable; the limit is {limit:g} ms "
            "(provision.fsync_max_ms)"
        )
    if abs(facts.clock_s - now_s) > CLOCK_OFF_S:
        off = facts.clock_s - now_s
        problems.append(f"has a clock that is off by {off:+.1f} s: certificates will not hold")
    ours = {"etcd", "postgres", "flightmode", "python", "python3"}
    if facts.runs(PROXY_SOCKET):
        ours.add("systemd")
    adopts = taken_over(wanted, facts) is not None
    for port, name in facts.listeners.items():
        if not (_is_ours(facts, name, ours) or (adopts and name == "postgres")):
            problems.append(f"has another program, {name}, listening on port {port}")
    problems += [_somebody_s(each, wanted) for each in _in_the_way(wanted, facts)]
    return tuple(problems)


def _somebody_s(cluster: DebianCluster, wanted: Wanted) -> str:
    told = (
        f"runs a PostgreSQL of somebody's own, {cluster.unit} "
        f"({cluster.data_dir or 'data unknown'}), which Debian could not start any more"
    )
    if cluster.data_dir == wanted.data_dir:
        return f"{told}: move it away first, if nobody needs it: `{away(cluster, wanted.data_dir)}`"
    return (
        f"{told}: let it be adopted, or elsewhere (`pg_dropcluster --stop {cluster.major} "
        f"{cluster.name}` deletes it)"
    )


def _in_the_way(wanted: Wanted, facts: Facts) -> list[DebianCluster]:
    """Those that run, and that masking Debian's service would stop, now or at the next boot."""
    masks = _POSTGRESQL in wanted.masked and _POSTGRESQL in _unmasked(wanted, facts)
    adopted = taken_over(wanted, facts)
    return [each for each in facts.clusters if masks and each.active and each != adopted]


def _unmasked(wanted: Wanted, facts: Facts) -> list[str]:
    units = facts.units
    return [n for n in wanted.masked if n not in units or units[n].enabled != "masked"]


def _is_ours(facts: Facts, name: str, ours: set[str]) -> bool:
    """A known program is ours once our units exist there; before that it is somebody's own."""
    return name in ours and any(unit.enabled == "enabled" for unit in facts.units.values())


def _masks(wanted: Wanted, facts: Facts) -> list[Step]:
    """Before the packages come: a package starts its service at once (R44)."""
    missing = _unmasked(wanted, facts)
    steps = []
    if missing:
        names = " ".join(missing)
        # What is taken over goes on until everything else is there.
        now = "--now " if taken_over(wanted, facts) is None else ""
        steps.append(Step(f"mask {names}", f"systemctl mask {now}{names} 2>&1"))
    if wanted.role is Role.DATABASE and f"postgresql-{_major(wanted)}" not in facts.packages:
        path = "/etc/postgresql-common/createcluster.conf"
        steps.append(
            Step(
                "no cluster of Debian's own",
                f"mkdir -p /etc/postgresql-common && [ -e {path} ] || "
                f"echo 'create_main_cluster = false' > {path}",
            )
        )
    return steps


def _taking_over(wanted: Wanted, facts: Facts) -> list[Step]:
    """Short: all else is there before, and the fence and the agent start right after it."""
    old = taken_over(wanted, facts)
    if old is None:
        return []
    disabled = f"/etc/postgresql/{old.major}/{old.name}/start.conf"
    return [
        # A first primary also waits for the others to say that they have no data.
        Step("etcd answers, and the others are ready", f"systemctl start {ETCD}", last=True),
        Step(
            f"{old.unit} stops, for good",
            f"echo disabled > {disabled} && systemctl stop {old.unit}",
        ),
    ]


def _major(wanted: Wanted) -> str:
    return next(n.rpartition("-")[2] for n in wanted.packages if n.startswith("postgresql-"))


def _packages(wanted: Wanted, facts: Facts) -> list[Step]:
    missing = [name for name in wanted.packages if name not in facts.packages]
    if not facts.packages.intersection(CLOCKS):
        missing.append(CLOCKS[0])
    if not missing:
        return []
    return [Step(f"install {' '.join(missing)}", install_command(missing), debian=True)]


def install_command(packages: Sequence[str]) -> str:
    """A shell command that installs them.

    A run that was cut off has left a dpkg in the middle of its work, or one that still works.
    """
    known = " && ".join(_is_known(name) for name in packages if name.startswith("postgresql-"))
    install = f"install -q -y --no-install-recommends {' '.join(packages)}"
    return locked_apt("update -q", known, install)


def locked_apt(*verbs: str) -> str:
    """A shell command: apt-get does these one after the other, and nobody else does meanwhile.

    One with `apt-cache` in it is taken as it is.  Configuration files stay as they are.
    """
    options = "-o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold"
    commands = [
        each if "apt-cache" in each else f"apt-get {options} {each}" for each in verbs if each
    ]
    first = "set -e; export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1"
    whole = "; ".join((first, "dpkg --configure -a", *commands))
    return f"flock -w 600 /run/flightmode-packages.lock sh -c {shlex.quote(whole)}"


def _is_known(name: str) -> str:
    """A shell command that fails, and says what to do, where apt has no such package."""
    text = f"apt knows no {name}: Debian 12 has 15 and Debian 13 has 17 (cluster.postgres_major)"
    return f"{{ apt-cache show {name} >/dev/null 2>&1 || {{ echo '{text}' >&2; false; }}; }}"


def _user(facts: Facts) -> list[Step]:
    if OWN_USER in facts.users:
        return []
    make = f"useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {OWN_USER}"
    return [Step(f"the user {OWN_USER}", f"getent passwd {OWN_USER} >/dev/null || {make}")]


def _directories(wanted: Wanted, facts: Facts) -> list[Step]:
    steps = []
    for path, owned in wanted.directories.items():
        held = facts.held.get(path)
        if held is None or (held.mode, held.owner) != (owned.mode, owned.owner):
            user, _, group = owned.owner.partition(":")
            make = f"install -d -m {owned.mode:04o} -o {user} -g {group} {shlex.quote(path)}"
            steps.append(Step(f"the directory {path}", make))
    return steps


def _parameters(config: Config, wanted: Wanted, facts: Facts) -> list[Step]:
    """Before flightmode.toml is written: with a setting that it does not know PostgreSQL takes up
    nothing at a reload, and does not start."""
    changed = any(file.path == TOML and _differs(file, facts) for file in wanted.files)
    if wanted.role is not Role.DATABASE or not changed or not config.postgres.parameters:
        return []
    return [Step("PostgreSQL takes the settings of flightmode.toml", judging(config))]


def _files(wanted: Wanted, facts: Facts) -> list[Step]:
    changed = [file for file in wanted.files if _differs(file, facts)]
    groups: dict[str, list[File]] = {}
    for file in changed:
        groups.setdefault(file.together or file.path, []).append(file)
    return [*_judged(changed), *(_written(tuple(each)) for each in groups.values())]


def _written(files: tuple[File, ...]) -> Step:
    """Of files that belong together those that are right already stay."""
    first, *others = (file.path for file in files)
    return Step(f"write {', '.join((first, *map(os.path.basename, others)))}", files=files)


def _judged(files: Sequence[File]) -> list[Step]:
    """Before anything is written: a file that is wrong would be found out at the next boot."""
    return [
        Step(f"judge {file.path}", f"printf %s {shlex.quote(file.content.decode())} | {file.judge}")
        for file in files
        if file.judge
    ]


def _differs(file: File, facts: Facts) -> bool:
    held = facts.held.get(file.path)
    same = hashlib.sha256(file.content).hexdigest()
    return held is None or (held.digest, held.mode, held.owner) != (
        same,
        file.owned.mode,
        file.owned.owner,
    )


def _kernel(wanted: Wanted, facts: Facts) -> list[Step]:
    """Not where more memory is promised already than there would be: nothing could start."""
    if all(facts.kernel.get(name, value) == value for name, value in wanted.kernel.items()):
        return []
    fits = (
        '$1 == "MemTotal:" { m = $2 } $1 == "SwapTotal:" { s = $2 } $1 == "Committed_AS:" '
        "{ c = $2 } END { exit !(c < m * 0.9 + s) }"
    )
    told = "it has too little memory for vm.overcommit_memory = 2: provision.tune_kernel = false"
    return [
        Step(
            "settings of the kernel",
            f"awk {shlex.quote(fits)} /proc/meminfo || {{ echo '{told}' >&2; false; }} && "
            f"sysctl -q --load={KERNEL}",
        )
    ]


def _release(facts: Facts, release: str) -> list[Step]:
    return [] if facts.release == release else [Step(f"install {release}", release=True)]


def _units(wanted: Wanted, facts: Facts, release: str) -> list[Step]:
    changed = {file.path for file in wanted.files if _differs(file, facts)}
    steps = []
    if facts.unread or any(path.startswith("/etc/systemd/") for path in changed):
        steps.append(Step("systemd reads its units", "systemctl daemon-reload"))
    stopped = [
        name
        for name in wanted.units
        if not facts.runs(name) and not (name == PROXY_SOCKET and facts.runs(PROXY))
    ]
    disabled = [
        n for n in wanted.units if n not in facts.units or facts.units[n].enabled != "enabled"
    ]
    if disabled:
        steps.append(Step("enable at boot", f"systemctl enable --quiet {' '.join(disabled)}"))
    restarted = [n for n in _restarted(wanted, facts, changed, release) if n not in stopped]
    for name in stopped:
        if name == FENCE:
            steps += _taking_over(wanted, facts)
        steps.append(Step(f"start {name}", _start(name), meets=True))
    steps += [_restart(wanted, facts, name) for name in restarted]
    return steps


def _restart(wanted: Wanted, facts: Facts, name: str) -> Step:
    """A proxy is not restarted: a new one takes its clients over, unless it listens elsewhere."""
    if name == PROXY and all(port in facts.listeners for port in wanted.ports):
        return proxy_takeover()
    if name == PROXY and PROXY_SOCKET in wanted.units:
        both = f"{PROXY_SOCKET} {PROXY}"
        command = (
            f"systemctl stop {both}; systemctl start {PROXY_SOCKET} && systemctl start {PROXY}"
        )
        return Step(f"restart {PROXY}, which listens elsewhere", command)
    if name == FIREWALL:
        # A restart would leave the ports open in between, and for good if it failed.
        return Step(f"reload {name}", f"systemctl reload {name}")
    in_turn = name in (ETCD, AGENT)
    return Step(f"restart {name}", f"systemctl restart {name}", in_turn=in_turn, meets=True)


def proxy_takeover() -> Step:
    """Nobody is disconnected.  Ended when the new one is the service, and not before."""
    main = f"$(systemctl show --property=MainPID --value {PROXY})"
    begin = f"systemctl kill --kill-whom=main --signal=USR2 {PROXY}"
    wait = f'until [ "{main}" != "$0" ]; do sleep 0.1; done'
    told = f"no other took over, and the one that runs goes on: journalctl -u {PROXY}"
    command = (
        f'old="{main}" && {begin} && timeout {TAKEN_OVER_S} sh -c {shlex.quote(wait)} "$old" || '
        f"{{ echo '{told}' >&2; false; }}"
    )
    return Step(f"{PROXY}: a new one takes its clients over", command)


def _fence(config: Config, wanted: Wanted, facts: Facts, release: str) -> list[Step]:
    if wanted.role is not Role.DATABASE or facts.fence in ("", release):
        return []
    return [fence_restart(config, wanted)]


def fence_restart(config: Config, wanted: Wanted) -> Step:
    """Ended when Postgres answers again."""
    port, user = config.nodes[wanted.name].postgres_port, config.postgres.user
    asked = ["runuser", "-u", user, "--", "psql", "-h", wanted.socket_dir, "-p", str(port)]
    wait = f"until {shlex.join([*asked, '-qAtc', 'SELECT 1'])} >/dev/null 2>&1; do sleep 0.2; done"
    command = f"systemctl restart {FENCE} && timeout 120 sh -c {shlex.quote(wait)}"
    return Step("PostgreSQL restarts, under a new fence", command)


def _start(name: str) -> str:
    """etcd waits for its neighbours, which wait for it: nobody waits for its first start."""
    block = "--no-block " if name == ETCD else ""
    if name == PROXY_SOCKET:
        # One that fails and is tried again may listen at this very moment.
        return f"systemctl stop {PROXY}; systemctl restart {name}"
    return f"systemctl reset-failed {name} 2>/dev/null; systemctl restart {block}{name}"


def _restarted(wanted: Wanted, facts: Facts, changed: set[str], release: str) -> list[str]:
    """What has to begin anew.  Never the fence: a new one comes with the next start of Postgres."""
    names = {
        name
        for file in wanted.files
        for name in file.restarts
        if file.path in changed or _is_older(name, file.path, facts)
    }
    if not facts.firewall:
        # Somebody has flushed all rules: the unit is as active as before.
        names.add(FIREWALL)
    names |= {
        name
        for name in (AGENT, PROXY)
        if facts.release != release or _is_older(name, CURRENT, facts)
    }
    return [name for name in wanted.units if name in names and "fence" not in name]


def _is_older(name: str, path: str, facts: Facts) -> bool:
    """Whether the unit runs since before the file was written: a run was cut off in between."""
    began_s, written_s = facts.began_s.get(name), facts.written_s.get(path)
    return began_s is not None and written_s is not None and written_s > began_s + CLOSE_S


def _told(step: Step) -> str:
    return f"{step.title}, one host after the other" if step.in_turn else step.title


def summary(plans: list[Plan]) -> list[str]:
    """A line for each thing to do, with the hosts it concerns."""
    pairs = sorted(
        ((_told(step), plan.name) for plan in plans for step in plan.steps),
        key=lambda pair: pair[0],
    )
    return [
        f"{title}: {', '.join(name for _, name in group)}"
        for title, group in groupby(pairs, key=lambda pair: pair[0])
    ]
