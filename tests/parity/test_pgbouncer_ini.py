"""PgBouncer's words for ours."""

from pathlib import Path
from typing import Any

from tests.parity.pgbouncer_ini import connection_words, hba_rules, read, translate

TEXT = """
[databases]
; a comment
p0 = port=7001 host=127.0.0.1 dbname=real pool_size=2 reserve_pool_size=3
p1 = port=7001 host=127.0.0.1 connect_query='set a = ''b'''
[users]
few = max_user_connections=3 pool_size=1
[pgbouncer]
listen_port = 6543
auth_type = trust
pool_mode = statement
default_pool_size = 5
default_pool_size = 7
query_timeout = 3
max_client_conn = 10
so_reuseport = 1
"""


def translated() -> dict[str, Any]:
    return translate(read(TEXT), Path("/s"), Path("/s/admin")).config


def test_a_database_has_its_own_words_and_the_defaults():
    assert translated()["databases"]["p0"] == {
        "pool_mode": "statement",
        "pool_size": 2,
        "reserve": 3,
        "dbname": "real",
    }
    assert translated()["databases"]["p1"]["pool_size"] == 7


def test_times_and_limits_are_renamed():
    assert translated()["times"] == {"query_s": 3.0}
    assert translated()["limits"] == {"max_clients": 10}


def test_what_has_no_word_of_ours_is_named():
    unknown = translate(read(TEXT), Path("/s"), Path("/s/admin")).unknown
    assert unknown == ["database p1: connect_query", "user few: pool_size", "setting so_reuseport"]


def test_a_quoted_value_may_hold_anything():
    assert connection_words("a=1 b='it''s two' c=3") == {"a": "1", "b": "it's two", "c": "3"}


def test_hba_lines_become_rules_and_maps_are_named():
    unknown: list[str] = []
    lines = ["host all u 10.0.0.0/8 md5", "local all all trust", "host a b ::1/128 cert map=m"]
    rules = list(hba_rules(lines, unknown))
    assert [found["method"] for found in rules] == ["md5", "trust"]
    assert unknown == ["hba line host a b ::1/128 cert map=m"]
