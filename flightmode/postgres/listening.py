"""Whether Postgres will get its port: it would end at once, and say so in its log only."""

import errno
import socket

from flightmode.errors import PostgresPortTaken


def check_port_free(host: str, port: int) -> None:
    """Bind as Postgres does (SO_REUSEADDR), and let go.  Raises PostgresPortTaken.

    Any other trouble with the address is left to Postgres, who knows all of its addresses.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(address)
            except OSError as wrong:
                if wrong.errno == errno.EADDRINUSE:
                    text = f"another program listens at {host}:{port}, where Postgres should"
                    hint = f"ss -ltnp 'sport = :{port}'"
                    raise PostgresPortTaken(text, hint=hint) from None
