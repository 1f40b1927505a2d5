"""How a member of etcd is started.

`--pre-vote`: a member that comes back must not disturb the others (off by default in etcd
3.4).  Timings: heartbeat 100 ms, election 1 s.  Source: etcd's operations guide,
"Configuration flags" and "Tuning".
"""

from pathlib import Path

from flightmode.config.derive import bracketed
from flightmode.config.schema import Config


def etcd_argv(config: Config, node: str, data: Path, tls: Path) -> list[str]:
    """Argv of the member on `node`; clients and members prove themselves by certificates.

    Who the others are is told apart from it, by `initial_cluster`.
    """
    me = config.nodes[node]
    host = bracketed(me.host)
    options = {
        "name": node,
        "data-dir": str(data),
        "listen-client-urls": f"https://{host}:{me.etcd_client_port}",
        "advertise-client-urls": f"https://{host}:{me.etcd_client_port}",
        "listen-peer-urls": f"https://{host}:{me.etcd_peer_port}",
        "initial-advertise-peer-urls": f"https://{host}:{me.etcd_peer_port}",
        "initial-cluster-token": config.cluster.name,
        "trusted-ca-file": str(tls / "ca.crt"),
        "cert-file": str(tls / "node.crt"),
        "key-file": str(tls / "node.key"),
        "peer-trusted-ca-file": str(tls / "ca.crt"),
        "peer-cert-file": str(tls / "node.crt"),
        "peer-key-file": str(tls / "node.key"),
        "heartbeat-interval": "100",
        "election-timeout": "1000",
        "auto-compaction-mode": "revision",
        "auto-compaction-retention": "10000",
        "quota-backend-bytes": str(512 << 20),
        "log-level": "warn",
        "logger": "zap",
    }
    switches = ["--client-cert-auth", "--peer-client-cert-auth", "--pre-vote"]
    return ["etcd", *(f"--{name}={value}" for name, value in options.items()), *switches]


def initial_cluster(config: Config) -> str:
    """ETCD_INITIAL_CLUSTER: read by a member without data, and by no other."""
    return ",".join(
        f"{name}=https://{bracketed(each.host)}:{each.etcd_peer_port}"
        for name, each in config.nodes.items()
    )
