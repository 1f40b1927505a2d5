"""Every setting: its type, default, range and meaning.

The reference page, the commented sample and the error messages are all made from
these classes; a setting is described here and nowhere else ([provision] and [proxy]: in
provisioning.py and proxy.py).
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from flightmode.config.provisioning import Provision
from flightmode.config.proxy import Proxy
from flightmode.config.section import ADDRESS, NAME, Location, Section, seconds
from flightmode.model.member import NodeKind
from flightmode.model.policy import Policy

_POLICY = Policy(nodes=(), bootstrap="", pg_major=15)
"""Its defaults are ours."""

Parameter = str | bool | int | float


class Cluster(Section):
    """What the cluster is called, and where it begins."""

    name: str = Field(
        pattern=NAME,
        description="What you call this cluster. Small letters, digits, - and _.",
    )
    postgres_major: int = Field(
        default=15,
        ge=14,
        le=18,
        description="The major version of PostgreSQL, the same on all nodes.",
    )
    bootstrap: str | None = Field(
        default=None,
        description="The database node that creates the database when there is none yet. "
        "Without it, the first database node.",
    )


class NodeSettings(Section):
    """One machine.  The table's last word is the node's name: small letters, digits, _."""

    kind: NodeKind = Field(
        default=NodeKind.DATABASE,
        description="`database` runs PostgreSQL. `witness` only votes: a small machine, best at "
        "another provider, so that the other two never have to guess.",
    )
    host: str = Field(
        min_length=1,
        max_length=253,
        pattern=ADDRESS,
        description="The IP address at which the other nodes reach it. A name is refused: etcd "
        "listens at addresses only.",
    )
    postgres_port: int = Field(
        default=5432, ge=1, le=65535, description="Where PostgreSQL listens."
    )
    api_port: int = Field(
        default=8008, ge=1, le=65535, description="Where the agent's HTTPS API listens."
    )
    heartbeat_port: int = Field(
        default=8009,
        ge=1,
        le=65535,
        description="Heartbeats of the other nodes, over UDP and TCP.",
    )
    etcd_client_port: int = Field(
        default=2379, ge=1, le=65535, description="etcd, for its clients."
    )
    etcd_peer_port: int = Field(
        default=2380, ge=1, le=65535, description="etcd, for the other members."
    )


class HbaRule(Section):
    """Who may connect from where: one line of pg_hba.conf.  Ours come first."""

    type: Literal["local", "host", "hostssl", "hostnossl", "hostgssenc"] = Field(
        default="hostssl",
        description="As in pg_hba.conf; `hostssl` accepts encrypted connections only.",
    )
    database: str = Field(default="all", min_length=1, description="Database names, or `all`.")
    user: str = Field(default="all", min_length=1, description="Role names, or `all`.")
    address: str | None = Field(
        default=None, description="From where, like 10.0.0.0/8; every type but `local` needs it."
    )
    method: Literal["scram-sha-256", "cert", "peer", "ident", "ldap", "pam", "reject", "md5"] = (
        Field(default="scram-sha-256", description="How they prove who they are.")
    )


class Postgres(Section):
    """The PostgreSQL server of each database node."""

    data_dir: Location = Field(
        default=Path("/var/lib/flightmode/postgres"),
        description="The data directory. Its parent must be writable by `user`, so that an old "
        "copy can be kept beside it.",
    )
    bin_dir: Location | None = Field(
        default=None, description="Where initdb and postgres are. Without it, it is searched for."
    )
    socket_dir: Location = Field(
        default=Path("/run/flightmode/postgres"), description="Where the local socket is."
    )
    user: str = Field(
        default="postgres",
        min_length=1,
        description="The system user that PostgreSQL runs as; never root.",
    )
    tls: bool = Field(
        default=True,
        description="Encrypt connections between nodes and from clients. Only turn it off for a "
        "PostgreSQL that was built without TLS.",
    )
    parameters: dict[str, Parameter] = Field(
        default={},
        description="Further settings of PostgreSQL, as in postgresql.conf. Those that Flightmode "
        "depends on are refused here.",
    )
    hba: tuple[HbaRule, ...] = Field(
        default=(), description="Who may connect from where. Without a rule, no client may."
    )


class Timing(Section):
    """How patient the cluster is.  The defaults suit nodes within one continent."""

    ttl_s: float = seconds(
        _POLICY.ttl_s,
        1,
        60,
        "How long a silent leader keeps its right to write: about as long writes stop when a "
        "primary's machine dies without a word.",
    )
    renew_every_s: float = seconds(
        _POLICY.renew_every_s, 0.1, 20, "How often the leader renews that right."
    )
    margin: float = seconds(
        _POLICY.margin,
        0.05,
        0.5,
        "The part of `ttl_s` that is given away for clocks that drift. Not seconds: 0.1 is 10 %.",
    )
    suspect_after_s: float = seconds(
        _POLICY.suspect_after_s,
        0,
        60,
        "When two nodes have lost every sign of life of the primary's machine for so long, its "
        "standby takes over at once; a sign of less weight waits for `ttl_s`. 0: always wait.",
    )
    standby_silent_s: float = seconds(
        _POLICY.standby_silent_s,
        0.5,
        60,
        "A synchronous standby that says nothing for so long is left out, and commits go on "
        "without it: about as long writes stop when the standby dies.",
    )
    standby_lost_s: float = seconds(
        _POLICY.standby_lost_s,
        0,
        60,
        "The same, when its machine sends no heartbeats any more either. 0: only the above.",
    )
    stable_for_s: float = seconds(
        _POLICY.stable_for_s, 0, 600, "So long a standby streams before commits wait for it …"
    )
    stable_after_flap_s: float = seconds(
        _POLICY.stable_after_flap_s,
        0,
        3600,
        "… and so long when it was left out within the last `flap_window_s`.",
    )
    flap_window_s: float = seconds(_POLICY.flap_window_s, 0, 86400, "See `stable_after_flap_s`.")
    member_fresh_s: float = seconds(
        _POLICY.member_fresh_s,
        0.5,
        60,
        "What a node said of itself longer ago says nothing of the present.",
    )
    hang_after_s: float = seconds(
        _POLICY.hang_after_s,
        0,
        600,
        "A primary that takes no new connection, or whose disk takes no small write, for so long "
        "is ended, if its standby could take over at once. 0: never.",
    )
    handover_patience_s: float = seconds(
        _POLICY.handover_patience_s,
        0.2,
        60,
        "PostgreSQL crashed and a standby was asked to take over: after so long without an answer "
        "it is restarted in place.",
    )
    start_patience_s: float = seconds(
        _POLICY.start_patience_s,
        1,
        86400,
        "So long crash recovery may take while a standby could serve at once.",
    )
    promote_patience_s: float = seconds(
        _POLICY.promote_patience_s,
        1,
        600,
        "A promotion that takes longer is given up, if the old primary is healthy.",
    )
    switchover_patience_s: float = seconds(
        _POLICY.switchover_patience_s,
        1,
        600,
        "A switchover that takes longer is taken back once PostgreSQL is being stopped.",
    )
    stop_patience_s: float = seconds(
        _POLICY.stop_patience_s,
        0.2,
        600,
        "A planned stop waits so long for logical replication and the archiver.",
    )
    job_retry_s: float = seconds(
        _POLICY.job_retry_s, 0.1, 3600, "Pause after a copy or a rewind of the data that failed."
    )
    pause_grace_s: float = seconds(
        _POLICY.pause_grace_s,
        1,
        3600,
        "Other nodes honour a pause so much longer than it lasts, because wall clocks differ.",
    )


class Guards(Section):
    """What the machine refuses to do by itself."""

    crashes_max: int = Field(
        default=_POLICY.crashes_max,
        ge=0,
        le=100,
        description="So many failovers by a crash of PostgreSQL within `crash_window_s`; then it "
        "is restarted in place: a query that kills one primary will kill the next one too.",
    )
    crash_window_s: float = seconds(_POLICY.crash_window_s, 1, 86400, "See `crashes_max`.")
    disk_floor: float = seconds(
        _POLICY.disk_floor,
        0,
        0.5,
        "A node with a smaller part of its disk free is never promoted; 0.02 is 2 %.",
    )


class Tls(Section):
    """The cluster's own certificates, as `flightmode init` makes them."""

    directory: Location = Field(
        default=Path("/etc/flightmode/tls"),
        description="On a node: ca.crt, node.crt, node.key. For an operator: ca.crt, client.crt, "
        "client.key.",
    )


class Secrets(Section):
    """Passwords and tokens, one a file, readable by their owner only."""

    directory: Location = Field(
        default=Path("/etc/flightmode/secrets"),
        description="Holds replication, rewind, monitor, app, api-token and heartbeat.",
    )


class Paths(Section):
    """Where a node keeps what it writes."""

    run_dir: Location = Field(
        default=Path("/run/flightmode"), description="The fence's socket; emptied by a reboot."
    )
    state_dir: Location = Field(
        default=Path("/var/lib/flightmode"), description="The journal and the logs."
    )


class Fence(Section):
    """What stops PostgreSQL when the agent can't: a process of its own, and what backs it."""

    cgroup: bool = Field(
        default=True,
        description="Keep PostgreSQL in a cgroup of its own, so that all of it can be killed.",
    )
    nft: bool = Field(
        default=False,
        description="Also cut PostgreSQL's port by nftables when it does not die in time.",
    )
    watchdog: Location | None = Field(
        default=None, description="Also reset the machine through this device, like /dev/watchdog."
    )


class Config(Section):
    """flightmode.toml: one file for the whole cluster, the same on every node."""

    cluster: Cluster
    nodes: dict[str, NodeSettings] = Field(
        description="One table a machine: two database nodes and a witness, or three database "
        "nodes."
    )
    postgres: Postgres = Field(default_factory=Postgres)
    timing: Timing = Field(default_factory=Timing)
    guards: Guards = Field(default_factory=Guards)
    tls: Tls = Field(default_factory=Tls)
    secrets: Secrets = Field(default_factory=Secrets)
    paths: Paths = Field(default_factory=Paths)
    fence: Fence = Field(default_factory=Fence)
    proxy: Proxy = Field(default_factory=Proxy)
    provision: Provision = Field(default_factory=Provision)
