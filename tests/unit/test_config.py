"""flightmode.toml: what is right is read, and what is wrong is said with its place."""

import contextlib
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from flightmode.config import Config, etcd_endpoints, locations_of, parse, policy_of
from flightmode.config.check import RESERVED_PARAMETERS, RULES
from flightmode.config.derive import api_url
from flightmode.config.lines import line_numbers
from flightmode.errors import ConfigInvalid
from flightmode.model.member import Node, NodeKind
from flightmode.model.policy import Policy
from flightmode.postgres.settings import Changing, PostgresConfig, conf

GOOD = """\
[cluster]
name = "main"

[nodes.ams]
host = "10.0.0.1"
[nodes.fra]
host = "10.0.0.2"
postgres_port = 5433
[nodes.wit]
kind = "witness"
host = "fd00::3"
"""


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    return caught.value.problems


def changed(**tables: dict[str, object]) -> str:
    """The good file with settings of whole tables put in."""
    document = tomlkit.parse(GOOD).unwrap()
    for table, values in tables.items():
        document[table] = {**document.get(table, {}), **values}
    return tomlkit.dumps(document)


def test_a_short_file_is_enough() -> None:
    config = parse(GOOD)
    assert config.cluster.postgres_major == 15
    assert config.nodes["wit"].kind is NodeKind.WITNESS
    assert config.timing.ttl_s == 5.0


def test_the_policy_has_every_node_and_the_default_times() -> None:
    nodes = (
        Node("ams", NodeKind.DATABASE, "10.0.0.1"),
        Node("fra", NodeKind.DATABASE, "10.0.0.2", postgres_port=5433),
        Node("wit", NodeKind.WITNESS, "fd00::3"),
    )
    assert policy_of(parse(GOOD)) == Policy(nodes, bootstrap="ams", pg_major=15)


def test_the_policy_takes_every_time_and_guard_of_the_file() -> None:
    text = changed(timing={"ttl_s": 9, "stop_patience_s": 3.5}, guards={"crashes_max": 7})
    policy = policy_of(parse(text))
    assert (policy.ttl_s, policy.stop_patience_s, policy.crashes_max) == (9.0, 3.5, 7)


def test_the_bootstrap_node_can_be_named() -> None:
    assert policy_of(parse(changed(cluster={"bootstrap": "fra"}))).bootstrap == "fra"


def test_addresses_are_urls_also_for_ipv6() -> None:
    config = parse(GOOD)
    assert etcd_endpoints(config)[2] == "https://[fd00::3]:2379"
    assert api_url(config, "ams") == "https://10.0.0.1:8008"


def test_relative_paths_count_from_the_file_and_name_the_node() -> None:
    text = changed(postgres={"data_dir": "data/{node}"}, tls={"directory": "/etc/x/{node}"})
    here = locations_of(parse(text, base=Path("/srv/demo")), "fra")
    assert here.data_dir == Path("/srv/demo/data/fra")
    assert here.tls_dir == Path("/etc/x/fra")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(GOOD).timing.ttl_s = 3  # type: ignore[misc]


def test_an_unknown_key_is_named_with_its_place_and_the_nearest_key() -> None:
    (found,) = problems(GOOD + "[timing]\ntll_s = 3\n")
    assert found == "timing.tll_s (line 13): unknown key; did you mean timing.ttl_s?"


def test_an_unknown_key_that_resembles_none_lists_the_known_ones() -> None:
    (found,) = problems(GOOD + "[guards]\nzzz = 3\n")
    assert "known here: crashes_max, crash_window_s, disk_floor" in found


def test_an_unknown_key_of_a_node_is_found() -> None:
    (found,) = problems(GOOD.replace("postgres_port", "postgres_prot"))
    assert "nodes.fra.postgres_prot (line 8)" in found
    assert "nodes.fra.postgres_port?" in found


@pytest.mark.parametrize(
    ("table", "key", "value", "sentence"),
    [
        ("timing", "ttl_s", 0.5, "found 0.5, must be a number from 1 to 60"),
        ("timing", "ttl_s", "5", 'found "5", must be a number from 1 to 60'),
        ("timing", "ttl_s", True, "found true, must be a number from 1 to 60"),
        ("guards", "crashes_max", 1.5, "found 1.5, must be a whole number from 0 to 100"),
        ("postgres", "tls", "yes", 'found "yes", must be true or false'),
        ("postgres", "data_dir", 3, "found 3, must be a path"),
        ("postgres", "hba", "all", 'found "all", must be a list of tables'),
        ("cluster", "name", "Main X", "must be small letters, digits, - and _"),
        ("cluster", "postgres_major", 13, "found 13, must be a whole number from 14 to 18"),
        ("tls", "directory", ["a"], 'found ["a"], must be a path'),
    ],
)
def test_a_wrong_value_is_said_with_what_is_allowed(
    table: str, key: str, value: object, sentence: str
) -> None:
    (found,) = problems(changed(**{table: {key: value}}))
    assert found.startswith(f"{table}.{key} (line ")
    assert sentence in found


def test_a_missing_setting_is_said_with_what_it_must_be() -> None:
    (found,) = problems(GOOD.replace('name = "main"', ""))
    assert found.startswith("cluster.name (line 1): missing; it must be small letters")


def test_all_mistakes_are_listed_at_once_in_the_order_of_the_file() -> None:
    text = GOOD.replace('"main"', "3") + "[timing]\nttl_s = 0\n[zap]\n[guards]\ndisk_floor = 2\n"
    found = problems(text)
    assert [each.split()[0] for each in found] == [
        "cluster.name",
        "timing.ttl_s",
        "zap",
        "guards.disk_floor",
    ]


def test_a_parameter_is_a_text_a_number_or_a_switch() -> None:
    given_values = {"shared_buffers": "1GB", "max_connections": 90, "jit": False, "a.b": 1.5}
    config = parse(changed(postgres={"parameters": given_values}))
    assert config.postgres.parameters == given_values
    (found,) = problems(changed(postgres={"parameters": {"jit": [1]}}))
    assert "found [1], must be a text, a number, true or false" in found


@pytest.mark.parametrize(
    "text", ["x", "= 3", "[a", "a = 1979-01-01", "\0", "a = nan", "[[cluster]]"]
)
def test_what_is_no_configuration_is_the_one_error(text: str) -> None:
    assert problems(text)


def test_a_file_that_is_not_toml_says_where() -> None:
    (found,) = problems('[cluster]\nname = "main\n')
    assert "not TOML" in found
    assert "line 2" in found


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_the_one_error(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse(text)


tables = st.sampled_from(list(Config.model_fields))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
).filter(lambda value: value is not None)


@settings(max_examples=100, deadline=None)
@given(table=tables, value=st.dictionaries(st.sampled_from(["name", "ttl_s", "hba"]), values))
def test_any_table_is_accepted_or_the_one_error(table: str, value: dict[str, object]) -> None:
    document = tomlkit.parse(GOOD).unwrap()
    document[table] = value
    try:
        text = tomlkit.dumps(document)
    except (ValueError, TypeError):  # what TOML itself cannot hold
        return
    with contextlib.suppress(ConfigInvalid):
        assert isinstance(parse(text), Config)


# ------------------------------------------------------------------------- rules across settings


RULE_BREAKERS = {
    "three_voters": GOOD.replace('kind = "witness"', 'kind = "witness"\n[nodes.two]\nhost = "::4"'),
    "names_of_nodes": GOOD.replace("nodes.fra", "nodes.Fra-1"),
    "nodes_are_at_addresses": GOOD.replace("10.0.0.2", "fra.example.com"),
    "one_address_each": GOOD.replace("10.0.0.2", "10.0.0.1"),
    "bootstrap_is_a_database": changed(cluster={"bootstrap": "wit"}),
    "renewals_fit_into_the_ttl": changed(timing={"renew_every_s": 2.5}),
    "a_silent_standby_is_left_out_in_time": changed(timing={"standby_silent_s": 6}),
    "a_flap_waits_longer": changed(timing={"stable_after_flap_s": 0.5}),
    "members_speak_before_they_are_stale": changed(timing={"member_fresh_s": 1}),
    "a_suspicion_takes_its_time": changed(timing={"suspect_after_s": 0.5}),
    "a_hang_takes_its_time": changed(timing={"hang_after_s": 1}),
    "parameters_are_free": changed(postgres={"parameters": {"synchronous_commit": "off"}}),
    "values_are_one_line": changed(postgres={"parameters": {"work_mem": "1MB'\nfsync = off"}}),
    "rules_of_access_are_whole": changed(postgres={"hba": [{"type": "host"}]}),
    "postgres_is_not_root": changed(postgres={"user": "root"}),
    "clients_are_networks": changed(provision={"clients": ["10.0.0.0/8 } accept"]}),
    "machines_are_apart": changed(provision={"apps": {"web": {"host": "10.0.0.1"}}}),
    "each_shard_of_the_proxy_has_a_server": changed(proxy={"shards": 4, "pool_size": 3}),
    "the_proxy_is_not_open": changed(proxy={"host": "0.0.0.0"}),
    "addresses_of_the_proxy_can_be_read": changed(proxy={"hba": [{"address": "10.0.0/8"}]}),
    "a_pool_keeps_no_more_than_it_has": changed(proxy={"min_pool_size": 3, "pool_size": 2}),
}


def test_every_rule_has_a_file_that_breaks_it() -> None:
    assert {rule.__name__ for rule in RULES} == set(RULE_BREAKERS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_broken_rule_is_said_and_no_other(rule: object) -> None:
    name = rule.__name__  # type: ignore[attr-defined]
    base = parse(GOOD)
    assert list(rule(base)) == []  # type: ignore[operator]
    assert problems(RULE_BREAKERS[name])


def test_an_application_s_host_can_not_have_the_operator_s_name() -> None:
    """Its certificate would open the verbs that change something."""
    (problem,) = problems(changed(provision={"apps": {"operator": {"host": "10.0.0.9"}}}))
    assert "provision.apps.operator" in problem


@pytest.mark.parametrize(
    "host", ["fra.example.com", "localhost", "10.0.0", "10.0.0.256", "10.0.0.02", "::", "0.0.0.0"]
)
def test_a_node_s_name_on_the_network_is_refused_for_etcd_could_not_listen_at_it(host: str) -> None:
    (found,) = problems(GOOD.replace("10.0.0.2", host))
    assert found.startswith(f'nodes.fra.host (line 7): found "{host}", must be an IP address')
    assert f"`getent hosts {host}`" in found
    assert parse(changed(provision={"apps": {"web": {"host": "web.example.com"}}}))


def test_ports_that_clash_name_each_other() -> None:
    clash = GOOD.replace(
        '"10.0.0.2"', '"10.0.0.1"\napi_port = 9\nheartbeat_port = 11\netcd_client_port = 10'
    )
    (found,) = problems(clash)
    assert found.startswith("nodes.fra.etcd_peer_port")
    assert "already taken by nodes.ams.etcd_peer_port" in found


def test_two_nodes_are_not_enough() -> None:
    (found,) = problems(GOOD[: GOOD.index("[nodes.wit]")])
    assert "found 2 database nodes and 0 witnesses" in found


def test_three_database_nodes_need_no_witness() -> None:
    assert parse(GOOD.replace('kind = "witness"', "")).nodes["wit"].kind is NodeKind.DATABASE


def test_a_rule_for_tls_never_matches_without_tls() -> None:
    hba = [{"address": "all"}]
    assert parse(changed(postgres={"hba": hba}))
    (found,) = problems(changed(postgres={"hba": hba, "tls": False}))
    assert "never matches" in found


@pytest.mark.parametrize(
    "address", ["all", "10.0.0.0/8", "10.1.2.3", "::1", "fd00::/8", "10.1.2.3/8"]
)
def test_an_address_that_the_proxy_understands_is_taken(address: str) -> None:
    assert parse(changed(proxy={"hba": [{"address": address, "method": "reject"}]}))


@pytest.mark.parametrize(
    "address",
    ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/255.0.0.0", "samenet", "fe80::1%eth0", "h"],
)
def test_a_typo_in_a_rule_that_rejects_is_said_for_the_next_rule_would_admit(address: str) -> None:
    rules = [{"address": address, "method": "reject"}, {"address": "all"}]
    (found,) = problems(changed(proxy={"hba": rules}))
    assert found.startswith("proxy.hba.0.address")


# ------------------------------------------------------------------------- line numbers


def test_lines_are_found_in_tables_lists_and_dotted_keys() -> None:
    text = "a.b = 1\n[c.d]\n# x = 3\ny = '''\n'''\n[[e.f]]\ng = 1\n[[e.f]]\ng = 2\n"
    numbers = line_numbers(text)
    assert numbers[("a", "b")] == 1
    assert numbers[("c", "d", "y")] == 4
    assert numbers[("e", "f", 1, "g")] == 9


@given(st.text())
def test_lines_of_any_text_can_be_asked_for(text: str) -> None:
    assert all(number >= 1 for number in line_numbers(text).values())


def test_every_setting_that_flightmode_makes_is_refused_to_users() -> None:
    text = conf(
        PostgresConfig(
            name="ams",
            host="10.0.0.1",
            port=5432,
            data_dir=Path("/d"),
            bin_dir=Path("/b"),
            socket_dir=Path("/s"),
            secrets_dir=Path("/p"),
            log=Path("/l"),
            tls_dir=Path("/t"),
            peers=(),
            parameters=(),
            hba=(),
            user="postgres",
            uid=1,
            gid=1,
            pg_major=15,
        ),
        Changing(None, ()),
        256,
    )
    ours = {line.partition(" =")[0] for line in text.splitlines() if " = " in line}
    free = {"wal_level", "max_wal_senders", "max_replication_slots", "wal_keep_size"}
    assert ours - free <= RESERVED_PARAMETERS
    assert free & RESERVED_PARAMETERS == set()


@pytest.mark.parametrize(("level", "right"), [("logical", True), ("minimal", False)])
def test_a_standby_can_follow_with_the_wal_level(level: str, right: bool) -> None:
    text = changed(postgres={"parameters": {"wal_level": level}})
    if right:
        assert parse(text)
    else:
        assert 'must be "replica" or "logical"' in problems(text)[0]
