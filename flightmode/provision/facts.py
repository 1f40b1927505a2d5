"""What a host has: one script that only looks, and the reading of its answer.  Pure."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flightmode.provision.wanted import Wanted

RELEASES = "/opt/flightmode"
CURRENT = f"{RELEASES}/current"
"""Leads to the release that is started next."""
COMPLETE = ".complete"
"""In the directory of a release: written last, when all else in it is on the disk."""
AGAIN = ".again"
"""Ends the name of the directory in which a release was made anew, beside its damaged self."""
CLOCKS = ("systemd-timesyncd", "chrony", "ntpsec", "ntp", "openntpd")
"""Packages that keep a clock right; the first is ours to install where there is none."""


@dataclass(frozen=True, slots=True)
class Held:
    """A file or directory as it is."""

    mode: int
    owner: str
    digest: str
    """SHA-256 of a file; empty for a directory."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as systemd has it."""

    enabled: str
    active: str


@dataclass(frozen=True, slots=True)
class DebianCluster:
    """A cluster of PostgreSQL as Debian's own tools keep it."""

    major: str
    name: str
    start: str
    """What `start.conf` says: auto, manual, disabled."""
    active: bool
    data_dir: str
    """Empty: its program is gone, and only its settings are left (removed, not purged)."""

    @property
    def unit(self) -> str:
        return f"postgresql@{self.major}-{self.name}.service"


@dataclass(frozen=True, slots=True)
class Facts:
    """One look at one host."""

    distribution: str = ""
    version: str = ""
    machine: str = ""
    python: str = ""
    """`3.11`; empty: none yet."""
    free_mb: int = 0
    fsync_ms: float = 0.0
    clock_s: float = 0.0
    """Its wall clock, unix time."""
    release: str = ""
    """Of Flightmode, as `/opt/flightmode/current` points to it; empty: none that is whole."""
    fence: str = ""
    """The release that the running fence is of; empty: none runs."""
    packages: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    held: Mapping[str, Held] = field(default_factory=dict)
    units: Mapping[str, Unit] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    """Units of which systemd still goes by an older file."""
    began_s: Mapping[str, float] = field(default_factory=dict)
    """Since when each unit that runs does, unix time; of one without a process, since when it has
    not been started or reloaded."""
    written_s: Mapping[str, float] = field(default_factory=dict)
    """When each file was written, and `CURRENT` made, unix time."""
    listeners: Mapping[int, str] = field(default_factory=dict)
    """Port to what listens on it."""
    clusters: tuple[DebianCluster, ...] = ()
    has_data: bool = False
    """Something is where PostgreSQL is to have its data."""
    firewall: bool = False
    """Our rules are in force, which the state of their unit does not tell."""
    kernel: Mapping[str, str] = field(default_factory=dict)
    """Settings of the kernel that may be changed from there; in a container they may not."""

    def runs(self, unit: str) -> bool:
        """Of those that it was asked about."""
        return unit in self.units and self.units[unit].active == "active"


def script(wanted: Wanted) -> str:
    """A shell script that prints a line for each fact, and changes nothing.

    It leaves nothing behind: the file by which fsync is measured is removed.
    """
    paths = [*wanted.directories, *(file.path for file in wanted.files)]
    return f"""
. /etc/os-release
echo "os ${{ID:-?}} ${{VERSION_ID:-?}}"
echo "machine $(uname -m)"
echo "clock $(date +%s.%N)"
python3 -c 'import sys; print("python %d.%d" % sys.version_info[:2])' 2>/dev/null
echo "free $(df -Pm /var/lib | awk 'NR==2 {{ print $4 }}')"
[ ! -e {CURRENT}/{COMPLETE} ] || echo "release $(readlink {CURRENT})"
pid=$(systemctl show --property=MainPID --value flightmode-fence.service 2>/dev/null)
echo "fence $(readlink "/proc/${{pid:-0}}/exe" 2>/dev/null)"
probe=$(mktemp /var/lib/.flightmode-fsync.XXXXXX)
began=$(date +%s%N)
dd if=/dev/zero of="$probe" bs=8k count=100 oflag=dsync conv=notrunc 2>/dev/null
ended=$(date +%s%N)
rm -f "$probe"
echo "fsync $(( (ended - began) / 100 ))"
for name in {_listed((*wanted.packages, *CLOCKS))}; do
    dpkg-query -W -f '${{db:Status-Status}} ${{Package}}\\n' "$name" 2>/dev/null |
        awk '$1 == "installed" {{ print "package " $2 }}'
done
cut -d: -f1 /etc/passwd | sed 's/^/user /'
for path in {_listed(paths)}; do
    [ -e "$path" ] || continue
    digest=-
    [ ! -f "$path" ] || digest=$(sha256sum "$path" | cut -d' ' -f1)
    echo "held $(stat -c '%a %U:%G' "$path") $digest $path"
    [ ! -f "$path" ] || echo "written $(stat -c %.Y "$path") $path"
done
[ ! -L {CURRENT} ] || echo "written $(stat -c %.Y {CURRENT}) {CURRENT}"
{_states([*wanted.units, *wanted.masked])}
for port in {_listed(str(port) for port in wanted.ports)}; do
    ss -Hltnp "sport = :$port" 2>/dev/null |
        sed -n "s/.*users:((\\"\\([^\\"]*\\)\\".*/listener $port \\1/p" | head -n 1
done
for name in {_listed(wanted.kernel)}; do
    [ ! -w "/proc/sys/$(echo "$name" | tr . /)" ] || echo "kernel $name $(sysctl -n "$name")"
done
for home in /etc/postgresql/*/*/; do
    [ -f "$home/postgresql.conf" ] || continue
    name=$(basename "$home") major=$(basename "$(dirname "$home")")
    start=$(sed 's/#.*//' "$home/start.conf" 2>/dev/null | tr -d '[:space:]')
    active=$(systemctl is-active "postgresql@$major-$name.service" 2>/dev/null || true)
    data=$(pg_conftool -s "$major" "$name" show data_directory 2>/dev/null)
    echo "cluster $major $name ${{start:-auto}} ${{active:-unknown}} $data"
done
{_data_in(wanted.data_dir)}
! nft list table inet flightmode_firewall >/dev/null 2>&1 || echo firewall
echo "end"
"""


def _data_in(data_dir: str) -> str:
    if not data_dir:
        return ""
    return f"""[ -z "$(ls -A {shlex.quote(data_dir)} 2>/dev/null)" ] || echo data"""


def _states(units: Iterable[str]) -> str:
    """How each unit is; whether systemd has read its file; since when it runs.

    That of a process is asked of the kernel: a proxy that takes over from another is a new one of
    the same unit.
    """
    return f"""now=$(date +%s.%N)
up=$(cut -d' ' -f1 /proc/uptime)
ticks=$(getconf CLK_TCK)
for name in {_listed(units)}; do
    enabled=$(systemctl is-enabled "$name" 2>/dev/null || true)
    echo "unit $name $enabled $(systemctl is-active "$name" 2>/dev/null || true)"
    shown=$(systemctl show --timestamp=us+utc \
        --property=NeedDaemonReload,MainPID,StateChangeTimestamp "$name" 2>/dev/null)
    ! echo "$shown" | grep -qx NeedDaemonReload=yes || echo "unread $name"
    pid=$(echo "$shown" | sed -n 's/^MainPID=//p')
    since=$(echo "$shown" | sed -n 's/^StateChangeTimestamp=//p')
    if [ -e "/proc/${{pid:-0}}/stat" ]; then
        sed 's/.*) //' "/proc/$pid/stat" | awk -v now="$now" -v up="$up" -v unit="$name" \
            -v ticks="$ticks" '{{ printf "began %.3f %s\\n", now - up + $20 / ticks, unit }}'
    elif [ -n "$since" ]; then
        echo "began $(date -d "$since" +%s.%N) $name"
    fi
done"""


def _listed(words: Iterable[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def read(answer: str) -> Facts | None:
    """The facts; None: the answer was cut off."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    if not lines or lines[-1] != "end":
        return None
    found: dict[str, list[str]] = {}
    for line in lines:
        kind, _, rest = line.partition(" ")
        found.setdefault(kind, []).append(rest)

    def rows(kind: str, columns: int) -> list[list[str]]:
        """What there is none of is empty; the last one may hold spaces."""
        split = (rest.split(None, columns - 1) for rest in found.get(kind, []))
        return [[*words, *[""] * (columns - len(words))] for words in split]

    def one(kind: str, default: str) -> str:
        return next((word for (word, _) in rows(kind, 2)), "") or default

    system = next(iter(rows("os", 2)), ["?", ""])
    return Facts(
        distribution=system[0],
        version=system[1],
        machine=one("machine", ""),
        python=one("python", ""),
        free_mb=int(one("free", "0")),
        fsync_ms=int(one("fsync", "0")) / 1e6,
        clock_s=float(one("clock", "0")),
        release=_release_in(one("release", "")),
        fence=_release_of(one("fence", "")),
        packages=frozenset(found.get("package", [])),
        users=frozenset(found.get("user", [])),
        held={
            path: Held(int(mode, 8), owner, "" if digest == "-" else digest)
            for mode, owner, digest, path in rows("held", 4)
        },
        units={name: _unit(states.split()) for name, states in rows("unit", 2)},
        unread=frozenset(found.get("unread", [])),
        began_s={name: float(at_s) for at_s, name in rows("began", 2)},
        written_s={path: float(at_s) for at_s, path in rows("written", 2)},
        listeners={int(port): name for port, name in rows("listener", 2)},
        clusters=tuple(
            DebianCluster(major, name, start, active == "active", data_dir)
            for major, name, start, active, data_dir in rows("cluster", 5)
        ),
        has_data="data" in found,
        firewall="firewall" in found,
        kernel=dict(rows("kernel", 2)),
    )


def _release_of(program: str) -> str:
    """`/opt/flightmode/RELEASE/bin/flightmode-fence`; also when that file is gone since."""
    parts = program.removeprefix(f"{RELEASES}/").split("/")
    return _release_in(parts[0]) if program.startswith(f"{RELEASES}/") else ""


def _release_in(directory: str) -> str:
    return directory.rpartition("/")[2].removesuffix(AGAIN)


def _unit(words: list[str]) -> Unit:
    """`is-enabled` says nothing of a unit that does not exist."""
    if len(words) == 2:
        return Unit(words[0], words[1])
    return Unit("", words[0] if words else "")
