"""Taking Flightmode off a host again.

What may be a copy of data stays where it is, or beside it: also a directory that an older copy was
put aside under (I10).  Deleted is only what is known by name to be ours, and nothing else.
"""

from shlex import quote

from flightmode.provision.facts import RELEASES
from flightmode.provision.plan import Plan, Step
from flightmode.provision.units import FIREWALL_OFF
from flightmode.provision.wanted import (
    ETC,
    ETCD_DROP_INS,
    KERNEL,
    LOGROTATE,
    STATE,
    UNITS,
    Role,
    Wanted,
)

KEPT = "what is kept"
"""The title of the step that prints the path of everything that stays."""


def removal(wanted: Wanted, data_dir: str) -> Plan:
    """Stop it, forget its files, keep the data of PostgreSQL under another name.

    The packages stay, and masked: whoever wants Debian's own service unmasks it.
    """
    files = [f"{UNITS}/{name}" for name in wanted.units]
    ours = [*files, ETCD_DROP_INS, KERNEL, LOGROTATE, ETC, f"{STATE}-etcd", RELEASES]
    ours += ["/run/flightmode", "/usr/local/bin/flightmode"]
    steps = [
        Step("stop everything", stop_command(_last_first(wanted.units))),
        *_opening(wanted),
        Step("keep the data aside", aside_command(data_dir)),
        Step("forget the rest", f"rm -rf {' '.join(map(quote, ours))} && systemctl daemon-reload"),
        Step(KEPT, kept_command(data_dir), tells=True),
    ]
    return Plan(wanted.name, (), tuple(steps))


def _last_first(units: tuple[str, ...]) -> tuple[str, ...]:
    """Sockets before all: who knocks at one starts its service again."""
    sockets = [name for name in units if name.endswith(".socket")]
    return (*sockets, *(name for name in reversed(units) if name not in sockets))


def _opening(wanted: Wanted) -> list[Step]:
    """After everything has stopped: the firewall's unit leaves its rules in force when it stops."""
    if wanted.role is Role.APP:
        return []
    there = "nft list table inet flightmode_firewall >/dev/null 2>&1"
    return [Step("take the firewall away", f"! {there} || {FIREWALL_OFF}")]


def stop_command(units: tuple[str, ...]) -> str:
    """A shell command that fails, and says which, where one of them does not stop.

    One that does not exist is stopped: a host may have been left in the middle.
    """
    return f"""set -e
for unit in {" ".join(map(quote, units))}; do
    known=$(systemctl show --property=LoadState --value "$unit")
    if [ "$known" != not-found ]; then
        systemctl stop "$unit"
        [ "$known" = masked ] || systemctl disable --quiet "$unit"
    fi
    state=$(systemctl show --property=ActiveState --value "$unit")
    case "$state" in
        inactive) ;;
        failed) systemctl reset-failed "$unit" ;;
        *) echo "$unit does not stop: it is $state" >&2; exit 1 ;;
    esac
done
"""


def aside_command(data_dir: str) -> str:
    """A shell command that renames it.  Fails where a process still works in it."""
    data = quote(data_dir)
    return f"""set -e
[ -e {data} ] || exit 0
real=$(realpath {data})
for process in /proc/[0-9]*; do
    if [ "$(readlink "$process/cwd" 2>/dev/null)" = "$real" ]; then
        echo "process ${{process#/proc/}} works in $real still" >&2
        exit 1
    fi
done
mv -T {data} {data}.of-"$(date +%Y%m%dT%H%M%S)"
"""


def kept_command(data_dir: str) -> str:
    """A shell command that deletes journal and log, and prints what is left.  May be repeated."""
    state, data = quote(STATE), quote(data_dir)
    return f"""set -e
rm -f {state}/journal.jsonl {state}/journal.jsonl.[0-9]*
rm -f {state}/postgres.log {state}/postgres.log.[0-9]*
[ ! -d {state} ] || rmdir --ignore-fail-on-non-empty {state}
for path in {state}/* {state}-etcd.* {data}.*; do
    [ ! -e "$path" ] || echo "$path"
done | sort -u
"""
