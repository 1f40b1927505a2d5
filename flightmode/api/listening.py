"""The socket of the API, taken before anything else: a port in use is told at once."""

import socket

from flightmode.errors import PortTaken


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there.  Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as wrong:
        listening.close()
        text = f"the API can't listen at {host} port {port}: {wrong.strerror}"
        raise PortTaken(text, hint=f"ss -ltnp 'sport = :{port}'") from None
    listening.setblocking(False)
    return listening
