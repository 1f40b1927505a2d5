"""PgBouncer's words for ours."""

import re
from pathlib import Path
from typing import Any

from tests.parity.expected_words import TABLE, widened
from tests.parity.pgbouncer_ini import connection_words, hba_rules, read, read_users, translate

TEXT = """
[databases]
; a comment
p0 = port=7001 host=127.0.0.1 dbname=real pool_size=2 reserve_pool_size=3
p1 = port=7001 host=127.0.0.1 connect_query='set a = ''b'''
[users]
few = max_user_connections=3 pool_size=1 transaction_timeout=9
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


def test_a_password_in_a_line_becomes_a_file_of_its_own():
    made = translate(read("[databases]\np = user=bob password='it''s'\n"), Path("/s"), Path("/a"))
    database = made.config["databases"]["p"]
    assert database["user"] == "bob"
    assert made.files == {Path(database["secret_file"]): "it's"}


def test_who_is_not_listed_is_trusted_only_where_others_are_asked_for():
    text = "[databases]\np = host=h\nq = host=h auth_user=asker\n[pgbouncer]\nauth_type = trust\n"
    made = translate(
        read(text), Path("/s"), Path("/a"), users=read_users('"ada" "x"\n"asker" "y"\n')
    )
    auth = made.config["auth"]
    named = [(rule["database"], rule["user"]) for rule in auth["rules"] if rule["type"] == "host"]
    assert named == [("all", "ada,asker"), ("q", "all")]
    assert (auth["query"]["user"], auth["query"]["database"]) == ("asker", "q")
    assert made.files[Path(auth["query"]["secret_file"])] == "y"


def test_a_method_of_theirs_alone_lets_nobody_in_and_is_named():
    unknown: list[str] = []
    assert [rule["method"] for rule in hba_rules(["local all all peer"], unknown)] == ["reject"]
    assert unknown == ["method peer"]


def test_expected_words_are_widened_and_stay_expressions():
    wide, theirs = widened(r"query_wait_timeout|other")
    assert theirs == "query_wait_timeout"
    assert re.search(wide, "all servers of this pool have been in use for 2 s")
    assert re.search(wide, "other")
    assert not re.search(wide, "anything else")
    assert widened("(SASL|password) authentication failed")[1] is None
    for pair in TABLE:
        re.compile(f"(?:{pair['theirs']}|{pair['ours']})")


def test_times_and_limits_are_renamed():
    assert translated()["times"] == {"query_s": 3.0, "server_connect_s": 15.0}
    assert translated()["limits"] == {"max_clients": 10, "preauth_s": 60.0}


def test_what_has_no_word_of_ours_is_named():
    unknown = translate(read(TEXT), Path("/s"), Path("/s/admin")).unknown
    assert unknown == [
        "database p1: connect_query",
        "user few: transaction_timeout",
        "setting so_reuseport",
    ]


def test_a_quoted_value_may_hold_anything():
    assert connection_words("a=1 b='it''s two' c=3") == {"a": "1", "b": "it's two", "c": "3"}


def test_hba_lines_become_rules_and_maps_are_named():
    unknown: list[str] = []
    lines = ["host all u 10.0.0.0/8 md5", "local all all trust", "host a b ::1/128 cert map=m"]
    rules = list(hba_rules(lines, unknown))
    assert [found["method"] for found in rules] == ["md5", "trust"]
    assert unknown == ["hba line host a b ::1/128 cert map=m"]
