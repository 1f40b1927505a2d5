"""Rules that bind several settings together, one function a rule."""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_network
from typing import Final

from flightmode.config.problem import Problem
from flightmode.config.schema import Config
from flightmode.model.member import OPERATOR, NodeKind

Rule = Callable[[Config], Iterable[Problem]]

RESERVED_PARAMETERS: Final = frozenset(
    {
        "archive_cleanup_command",
        "cluster_name",
        "config_file",
        "data_checksums",
        "data_directory",
        "external_pid_file",
        "fsync",
        "full_page_writes",
        "hba_file",
        "hot_standby",
        "ident_file",
        "listen_addresses",
        "log_destination",
        "logging_collector",
        "max_slot_wal_keep_size",
        "password_encryption",
        "port",
        "primary_conninfo",
        "primary_slot_name",
        "promote_trigger_file",
        "recovery_end_command",
        "recovery_min_apply_delay",
        "recovery_target",
        "recovery_target_action",
        "recovery_target_inclusive",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_timeline",
        "recovery_target_xid",
        "restart_after_crash",
        "restore_command",
        "ssl",
        "ssl_ca_file",
        "ssl_cert_file",
        "ssl_key_file",
        "standby_mode",
        "synchronous_commit",
        "synchronous_standby_names",
        "tcp_keepalives_count",
        "tcp_keepalives_idle",
        "tcp_keepalives_interval",
        "tcp_user_timeout",
        "trigger_file",
        "unix_socket_directories",
        "unix_socket_permissions",
        "wal_log_hints",
        "wal_receiver_status_interval",
        "wal_receiver_timeout",
        "wal_retrieve_retry_interval",
        "wal_sender_timeout",
    }
)
"""Flightmode sets these itself: what it promises rests on them."""

OWN_ROLES: Final = frozenset({"flightmode_replication", "flightmode_rewind", "flightmode_monitor"})


def problems_of(config: Config) -> list[Problem]:
    """What every rule has to say."""
    return [problem for rule in RULES for problem in rule(config)]


def three_voters(config: Config) -> Iterator[Problem]:
    """Two nodes cannot tell a dead neighbour from a cut cable; four are no better than three."""
    kinds = Counter(node.kind for node in config.nodes.values())
    fits = (kinds[NodeKind.DATABASE], kinds[NodeKind.WITNESS]) in ((2, 1), (3, 0))
    if not fits:
        yield Problem(
            "nodes",
            f"found {kinds[NodeKind.DATABASE]} database nodes and {kinds[NodeKind.WITNESS]} "
            "witnesses, must be two database nodes and a witness, or three database nodes",
        )


def names_of_nodes(config: Config) -> Iterator[Problem]:
    """A node's name becomes the name of a replication slot and of a key in etcd."""
    for name in config.nodes:
        letters = name.isascii() and name.replace("_", "").isalnum() and name == name.lower()
        if not letters or len(name) > 40 or name.startswith("_") or name.endswith("_"):
            yield Problem(
                f"nodes.{name}",
                "a node's name is made of small letters, digits and _ (at most 40), "
                "with a letter or digit at both ends",
            )


def nodes_are_at_addresses(config: Config) -> Iterator[Problem]:
    """etcd 3.4 starts with no name to listen at: "expected IP in URL for binding"."""
    for name, node in config.nodes.items():
        if not is_address(node.host):
            yield Problem(
                f"nodes.{name}.host",
                f'found "{node.host}", must be an IP address, which never changes: etcd does not '
                f"listen at a name. `getent hosts {node.host}` says which one it has now",
            )


def is_address(host: str) -> bool:
    """Whether it is an IP address as nodes have one: of one machine, without a zone."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_multicast or "%" in host)


def one_address_each(config: Config) -> Iterator[Problem]:
    """No two of the things that listen share a host and a port."""
    taken: dict[tuple[str, int], str] = {}
    for name, node in config.nodes.items():
        ports = ["api_port", "heartbeat_port", "etcd_client_port", "etcd_peer_port"]
        if node.kind is NodeKind.DATABASE:
            ports.append("postgres_port")
        for key in ports:
            address = (node.host.lower(), getattr(node, key))
            path = f"nodes.{name}.{key}"
            if address in taken:
                text = f"{address[0]}:{address[1]} is already taken by {taken[address]}"
                yield Problem(path, text)
            taken.setdefault(address, path)


def bootstrap_is_a_database(config: Config) -> Iterator[Problem]:
    """The first database has to be made where databases are."""
    name = config.cluster.bootstrap
    databases = [n for n, each in config.nodes.items() if each.kind is NodeKind.DATABASE]
    if name is not None and name not in databases:
        text = f'found "{name}", must be the name of a database node: {", ".join(databases)}'
        yield Problem("cluster.bootstrap", text)


def renewals_fit_into_the_ttl(config: Config) -> Iterator[Problem]:
    """One lost renewal must not cost the leader its right to write (I8)."""
    timing = config.timing
    usable_s = timing.ttl_s * (1 - timing.margin)
    if usable_s <= 2 * timing.renew_every_s + 0.2:
        yield Problem(
            "timing.renew_every_s",
            f"found {timing.renew_every_s:g}: two renewals have to fit into ttl_s less its margin "
            f"({usable_s:g} s), or one that is late stops the primary",
        )


def a_silent_standby_is_left_out_in_time(config: Config) -> Iterator[Problem]:
    """Later than the ttl, writes would wait longer for a dead standby than for a dead primary."""
    timing = config.timing
    if timing.standby_silent_s >= timing.ttl_s:
        yield Problem(
            "timing.standby_silent_s",
            f"found {timing.standby_silent_s:g}, must be less than ttl_s ({timing.ttl_s:g})",
        )


def a_flap_waits_longer(config: Config) -> Iterator[Problem]:
    """A standby that comes and goes must not be trusted sooner than one that is new."""
    timing = config.timing
    if timing.stable_after_flap_s < timing.stable_for_s:
        yield Problem(
            "timing.stable_after_flap_s",
            f"found {timing.stable_after_flap_s:g}, must be at least stable_for_s "
            f"({timing.stable_for_s:g})",
        )


def members_speak_before_they_are_stale(config: Config) -> Iterator[Problem]:
    """A node publishes about every second; younger than that nothing could ever be."""
    if config.timing.member_fresh_s < 2:
        found = f"{config.timing.member_fresh_s:g}"
        yield Problem("timing.member_fresh_s", f"found {found}, must be at least 2")


def a_suspicion_takes_its_time(config: Config) -> Iterator[Problem]:
    """A few heartbeats and a renewal may be late on a busy machine; that is no failover."""
    timing = config.timing
    least_s = max(1.0, timing.renew_every_s + 0.2)
    if timing.suspect_after_s > 0 and timing.suspect_after_s < least_s:
        yield Problem(
            "timing.suspect_after_s",
            f"found {timing.suspect_after_s:g}, must be 0 (never) or at least {least_s:g}: "
            "a renewal that is a little late must not look like a loss",
        )


def a_hang_takes_its_time(config: Config) -> Iterator[Problem]:
    """One slow commit is no hang: several probes have to fail."""
    found_s = config.timing.hang_after_s
    if 0 < found_s < 2:
        yield Problem("timing.hang_after_s", f"found {found_s:g}, must be 0 (never) or at least 2")


def parameters_are_free(config: Config) -> Iterator[Problem]:
    """What Flightmode promises rests on settings that it makes itself."""
    for name, value in config.postgres.parameters.items():
        if name.lower() in RESERVED_PARAMETERS:
            yield Problem(f"postgres.parameters.{name}", "Flightmode sets this one itself")
        elif name.lower() == "wal_level" and value not in ("replica", "logical"):
            yield Problem(f"postgres.parameters.{name}", 'must be "replica" or "logical"')
        elif not name.replace("_", "").replace(".", "").isalnum() or not name.isascii():
            yield Problem(f"postgres.parameters.{name}", "not the name of a setting of PostgreSQL")


def values_are_one_line(config: Config) -> Iterator[Problem]:
    """A line break would end the line of postgresql.conf or pg_hba.conf and begin another."""
    for name, value in config.postgres.parameters.items():
        if isinstance(value, str) and not value.isprintable():
            yield Problem(f"postgres.parameters.{name}", "holds a line break or control character")
    for index, rule in enumerate(config.postgres.hba):
        for key, value in rule.model_dump().items():
            if isinstance(value, str) and not value.isprintable():
                yield Problem(
                    f"postgres.hba.{index}.{key}", "holds a line break or control character"
                )


def rules_of_access_are_whole(config: Config) -> Iterator[Problem]:
    """pg_hba.conf: an address belongs to every type but `local`; TLS only when it is on."""
    for index, rule in enumerate(config.postgres.hba):
        path = f"postgres.hba.{index}"
        if rule.type == "local" and rule.address is not None:
            yield Problem(f"{path}.address", 'a rule of the type "local" has no address')
        if rule.type != "local" and rule.address is None:
            yield Problem(f"{path}.address", "missing; from where, like 10.0.0.0/8, or all")
        if rule.type == "hostssl" and not config.postgres.tls:
            yield Problem(f"{path}.type", '"hostssl" never matches while postgres.tls is false')
        if rule.user in OWN_ROLES:
            yield Problem(f"{path}.user", f"{rule.user} is a role of Flightmode's own")


def postgres_is_not_root(config: Config) -> Iterator[Problem]:
    """PostgreSQL refuses to run as root, and rightly so."""
    if config.postgres.user in ("root", "0"):
        yield Problem("postgres.user", "found root; PostgreSQL never runs as root")


def the_proxy_is_not_open(config: Config) -> Iterator[Problem]:
    """Passwords and data do not cross a network in the clear."""
    proxy = config.proxy
    if (proxy.tls_cert is None) != (proxy.tls_key is None):
        yield Problem("proxy.tls_cert", "tls_cert and tls_key belong together")
    here = proxy.host in ("localhost", "::1") or proxy.host.startswith("127.")
    if not here and proxy.tls_cert is None:
        text = f"found {proxy.host}: beyond this machine it needs tls_cert and tls_key"
        yield Problem("proxy.host", text)
    if proxy.tls_client_ca is not None and proxy.tls_cert is None:
        yield Problem("proxy.tls_client_ca", "needs tls_cert and tls_key")
    for index, rule in enumerate(proxy.hba):
        path = f"proxy.hba.{index}"
        if rule.type == "local" and rule.address is not None:
            yield Problem(f"{path}.address", 'a rule of the type "local" has no address')
        if rule.type == "hostssl" and proxy.tls_cert is None:
            yield Problem(f"{path}.type", '"hostssl" never matches without tls_cert and tls_key')
        if rule.method == "cert" and proxy.tls_client_ca is None:
            yield Problem(f"{path}.method", '"cert" needs tls_client_ca')
        if rule.method == "trust" and not here:
            yield Problem(f"{path}.method", f'"trust" would let anybody in at {proxy.host}')


def addresses_of_the_proxy_can_be_read(config: Config) -> Iterator[Problem]:
    """A rule that rejects an address it can not read rejects nobody, and the next one admits."""
    for index, rule in enumerate(config.proxy.hba):
        if rule.address is not None and not _is_network(rule.address):
            text = f'found "{rule.address}", must be an IP network like 10.0.0.0/8, or all'
            yield Problem(f"proxy.hba.{index}.address", text)


def _is_network(text: str) -> bool:
    """As the data path reads it: no netmask, no zone."""
    _, _, bits = text.partition("/")
    try:
        ip_network(text, strict=False)
    except ValueError:
        return text == "all"
    return "%" not in text and bits.isdigit() == ("/" in text)


def a_pool_keeps_no_more_than_it_has(config: Config) -> Iterator[Problem]:
    """More than its size can not be kept open: one of both numbers is not what was meant."""
    proxy = config.proxy
    pools = {"proxy": (proxy.min_pool_size, proxy.pool_size)}
    for name, pool in proxy.databases.items():
        least = proxy.min_pool_size if pool.min_pool_size is None else pool.min_pool_size
        pools[f"proxy.databases.{name}"] = (least, pool.pool_size or proxy.pool_size)
    for path, (least, size) in pools.items():
        if least > size:
            text = f"found {least}, must be at most pool_size ({size})"
            yield Problem(f"{path}.min_pool_size", text)


def each_shard_of_the_proxy_has_a_server(config: Config) -> Iterator[Problem]:
    """A pool's servers are divided among the threads, and a client stays with its thread."""
    proxy = config.proxy
    sizes = {"proxy.pool_size": proxy.pool_size}
    for name, pool in proxy.databases.items():
        if pool.pool_size is not None:
            sizes[f"proxy.databases.{name}.pool_size"] = pool.pool_size
    for path, size in sizes.items():
        if size < proxy.shards:
            yield Problem(path, f"found {size}, for {proxy.shards} shards: each needs one at least")


def machines_are_apart(config: Config) -> Iterator[Problem]:
    """An application's machine is none of the nodes: it would die with one."""
    hosts = {node.host.lower(): name for name, node in config.nodes.items()}
    for name, app in config.provision.apps.items():
        path = f"provision.apps.{name}"
        if app.host.lower() in hosts:
            yield Problem(f"{path}.host", f"is the host of the node {hosts[app.host.lower()]}")
        if name in config.nodes:
            yield Problem(path, "a node is called that already")
        if name == OPERATOR:
            yield Problem(path, "the certificate of whoever runs the cluster has that name")


def clients_are_networks(config: Config) -> Iterator[Problem]:
    """A firewall with a word in it that it does not know lets everybody in, or nobody."""
    for index, text in enumerate(config.provision.clients):
        try:
            ipaddress.ip_network(text)
        except ValueError as wrong:
            said = f"found {text!r}, must be a network like 10.0.0.0/8, or an address: {wrong}"
            yield Problem(f"provision.clients.{index}", said)


RULES: Final[tuple[Rule, ...]] = (
    three_voters,
    names_of_nodes,
    nodes_are_at_addresses,
    one_address_each,
    bootstrap_is_a_database,
    renewals_fit_into_the_ttl,
    a_silent_standby_is_left_out_in_time,
    a_flap_waits_longer,
    members_speak_before_they_are_stale,
    a_suspicion_takes_its_time,
    a_hang_takes_its_time,
    parameters_are_free,
    values_are_one_line,
    rules_of_access_are_whole,
    postgres_is_not_root,
    clients_are_networks,
    the_proxy_is_not_open,
    addresses_of_the_proxy_can_be_read,
    a_pool_keeps_no_more_than_it_has,
    each_shard_of_the_proxy_has_a_server,
    machines_are_apart,
)
