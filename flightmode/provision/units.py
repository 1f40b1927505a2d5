"""The units of systemd that run Flightmode on a host."""

from ipaddress import ip_address
from math import ceil
from pathlib import Path

from flightmode.config import Config
from flightmode.config.derive import bracketed
from flightmode.config.etcd import etcd_argv, initial_cluster

PROGRAM = "/opt/flightmode/current/bin/flightmode"

_WATCHDOG = "/dev/watchdog"
_ETCD_DATA = Path("/var/lib/flightmode-etcd")
_ETCD_TLS = Path("/etc/flightmode/etcd-tls")

# PostgreSQL may have its data, its socket and what COPY reads anywhere: no part of the file system
# is taken from its parent, nor are control groups, which that one ends it by.
_PARENT_OF_POSTGRES = """NoNewPrivileges=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
RestrictSUIDSGID=yes
LockPersonality=yes
"""

_HARDENED = f"""{_PARENT_OF_POSTGRES}PrivateTmp=yes
ProtectSystem=full
ProtectHome=yes
ProtectControlGroups=yes
"""

# Stopped before the network is, when a host goes down: the last WAL has to reach the standby.
_AFTER_NETWORK = """After=network.target network-online.target
Wants=network-online.target
"""

# However often it has failed before, it is tried again.
_ALWAYS = "StartLimitIntervalSec=0\n"

_LOAD = "/usr/sbin/nft -f /etc/flightmode/firewall.nft"

# `Requires=` would stop it whenever somebody restarts the firewall; this acts only at its start,
# and where the rules can't be loaded nothing that listens starts.  Loaded, and not only asked for:
# whoever flushes all rules (Debian's /etc/nftables.conf begins with that) flushes ours too, and
# their unit is as active as before.  The file is one transaction that replaces the same table, so
# it may be loaded at any time, and by two at once: nftables has them one after the other.
_BEHIND_FIREWALL = f"ExecStartPre=+{_LOAD}\n"


def etcd_unit(config: Config, node: str, user: str) -> str:
    """The only consensus.  It may wait for its neighbours for as long as they take."""
    argv = etcd_argv(config, node, _ETCD_DATA, _ETCD_TLS)
    command = " ".join(["/usr/bin/etcd", *map(quoted, argv[1:])])
    return f"""[Unit]
Description=Flightmode: etcd
{_AFTER_NETWORK}After=flightmode-firewall.service
Wants=flightmode-firewall.service
{_ALWAYS}
[Service]
Type=notify
NotifyAccess=all
User={user}
{_BEHIND_FIREWALL}ExecStart={command}
Restart=always
RestartSec=1
TimeoutStartSec=infinity
LimitNOFILE=65536
OOMScoreAdjust=-900
Nice=-5
CPUWeight=1000
{_HARDENED}
[Install]
WantedBy=multi-user.target
"""


def quoted(word: str) -> str:
    """One word of a command line of systemd, whatever is in it (systemd.service(5), QUOTING)."""
    escaped = word.replace("%", "%%").replace("$", "$$")
    if not any(mark in escaped for mark in " \t'\"\\;"):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def etcd_neighbours(config: Config) -> str:
    """A file beside the unit: who else is in the cluster, which only a first start reads.

    Apart, so that etcd is not restarted everywhere when a node is exchanged.
    """
    return f'[Service]\nEnvironment="ETCD_INITIAL_CLUSTER={initial_cluster(config)}"\n'


def fence_unit(config: Config, node: str) -> str:
    """The parent of Postgres.  Stopped, it stops Postgres first; systemd kills what is left."""
    watchdog = f" --watchdog {_WATCHDOG}" if config.provision.watchdog else ""
    return f"""[Unit]
Description=Flightmode: fence, the parent of PostgreSQL
After=local-fs.target network.target flightmode-firewall.service
{_ALWAYS}
[Service]
Type=simple
ExecStart={PROGRAM} fence --node {node}{watchdog}
KillMode=mixed
TimeoutStopSec=90
Restart=always
RestartSec=0.5
OOMScoreAdjust=-1000
LimitNOFILE=65536
Delegate=yes
{_PARENT_OF_POSTGRES}
[Install]
WantedBy=multi-user.target
"""


def agent_unit(node: str, user: str, *, fenced: bool) -> str:
    """It may stop and start at any time: Postgres goes on under its fence."""
    after = "flightmode-firewall.service flightmode-etcd.service"
    after += " flightmode-fence.service" if fenced else ""
    return f"""[Unit]
Description=Flightmode: agent
{_AFTER_NETWORK}After={after}
Wants={after}
{_ALWAYS}
[Service]
Type=simple
User={user}
{_BEHIND_FIREWALL}ExecStart={PROGRAM} agent --node {node}
Restart=always
RestartSec=0.5
TimeoutStopSec=10
OOMScoreAdjust=-900
Nice=-5
CPUWeight=1000
{_HARDENED}
[Install]
WantedBy=multi-user.target
"""


FIREWALL_OFF = "nft delete table inet flightmode_firewall"
"""What takes the rules away: nothing but this does, and a reboot without the unit."""


def firewall_unit() -> str:
    """Before anything of ours listens: etcd and the agent do not start without it, and without an
    agent no Postgres does.  New rules replace the old ones in one transaction, or do not.

    Debian's own service flushes all rules when it starts, stops, or reloads: this comes after it at
    boot, and again with its restart and its reload.  After a mere start of it the rules come with
    the next start of etcd or the agent, or the next run of `provision`.

    There is no `ExecStop=`: systemd runs it for a restart as well, and nothing tells it which of
    the two it is, so that the ports of what goes on running would be open in between.
    """
    return f"""# Stopping this leaves the rules in force: no restart opens a port.  They go by:
# {FIREWALL_OFF}
[Unit]
Description=Flightmode: firewall
DefaultDependencies=no
After=local-fs.target nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
Before=network-pre.target flightmode-etcd.service flightmode-fence.service flightmode-agent.service
Wants=network-pre.target
{_ALWAYS}
[Service]
Type=oneshot
RemainAfterExit=yes
Restart=on-failure
RestartSec=2
ExecStart={_LOAD}
ExecReload={_LOAD}

[Install]
WantedBy=multi-user.target
"""


def proxy_socket(config: Config) -> str | None:
    """systemd listens for the proxy, so that its port is open also while it restarts or a machine
    boots; who comes in between waits.  None where it listens at a name: systemd knows addresses.

    No limit of starts in vain: systemd would close the port after it.  A Unix socket stays the
    proxy's own business.
    """
    try:
        address = ip_address(config.proxy.host)
    except ValueError:
        return None
    return f"""[Unit]
Description=Flightmode: the port of the proxy

[Socket]
ListenStream={bracketed(str(address))}:{config.proxy.port}
Backlog=4096
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
"""


def proxy_unit(config: Config, user: str) -> str:
    """Beside the application.  systemd waits longer for its end than it waits for its clients."""
    sockets = "" if proxy_socket(config) is None else "Sockets=flightmode-proxy.socket\n"
    grace_s = ceil(config.proxy.stop_grace_s) + 20
    return f"""[Unit]
Description=Flightmode: proxy
{_AFTER_NETWORK}{_ALWAYS}
[Service]
Type=simple
User={user}
RuntimeDirectory=flightmode
RuntimeDirectoryMode=0711
{sockets}ExecStart={PROGRAM} proxy --take-over
NotifyAccess=main
Restart=always
RestartSec=0.2
TimeoutStopSec={grace_s}
LimitNOFILE=65536
{_HARDENED}
[Install]
WantedBy=multi-user.target
"""
