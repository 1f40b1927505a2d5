"""Taking Flightmode off a host again."""

from flightmode.provision.facts import RELEASES
from flightmode.provision.plan import Plan, Step
from flightmode.provision.wanted import ETC, ETCD_DROP_INS, KERNEL, LOGROTATE, STATE, UNITS, Wanted


def removal(wanted: Wanted, data_dir: str) -> Plan:
    """Stop it, forget its files, keep the data of PostgreSQL under another name.

    The packages stay, and masked: whoever wants Debian's own service unmasks it.
    """
    units = " ".join(reversed(wanted.units))
    files = " ".join(f"{UNITS}/{name}" for name in wanted.units)
    steps = [
        Step(
            "stop everything",
            f"systemctl disable --now {units} 2>/dev/null || true; "
            f"systemctl reset-failed {units} 2>/dev/null || true",
        ),
        Step(
            "keep the data aside",
            f'[ ! -e {data_dir} ] || mv {data_dir} "{data_dir}.of-$(date +%Y%m%dT%H%M%S)"',
        ),
        Step(
            "forget the rest",
            f"rm -rf {files} {ETCD_DROP_INS} {KERNEL} {LOGROTATE} {ETC} {STATE}-etcd "
            f"{RELEASES} /run/flightmode /usr/local/bin/flightmode && systemctl daemon-reload",
        ),
        Step(
            "and its journal",
            f"find {STATE} -mindepth 1 -maxdepth 1 ! -name '*.of-*' -exec rm -rf {{}} + "
            f"2>/dev/null; rmdir {STATE} 2>/dev/null || true",
        ),
    ]
    return Plan(wanted.name, (), tuple(steps))
