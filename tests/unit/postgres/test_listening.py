"""The port that Postgres wants, looked at before it is started."""

import socket

import pytest

from flightmode.errors import PostgresPortTaken
from flightmode.postgres.listening import check_port_free


def test_a_port_that_another_program_holds_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PostgresPortTaken, match=f"127.0.0.1:{port}") as refused:
            check_port_free("127.0.0.1", port)
    assert refused.value.hint_text == f"ss -ltnp 'sport = :{port}'"


def test_a_port_is_free_again_while_old_connections_to_it_linger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            served, _ = listening.accept()
            served.close()
    check_port_free("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_left_to_postgres() -> None:
    check_port_free("192.0.2.1", 5432)
