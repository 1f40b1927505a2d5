"""Whether what runs on a host also serves: asked there, of systemd and of the proxy.  Pure.

Of etcd, systemd knows no more than that it runs: its members are asked themselves, elsewhere.
"""

import shlex

from flightmode.config import Config
from flightmode.provision.facts import RELEASES
from flightmode.provision.wanted import ETC, Role, Wanted

PYTHON = f"{RELEASES}/current/bin/python3"
_QUERY = """
import psycopg
with open({secret!r}) as file:
    password = file.read().strip()
where = dict(host={host!r}, port={port}, dbname={dbname!r}, user="app", connect_timeout=5)
with psycopg.connect(password=password, **where) as there:
    there.execute("SELECT 1")
"""
_KNOCK = "import socket; socket.create_connection(({host!r}, {port}), 5).close()"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}


def script(config: Config, wanted: Wanted) -> str:
    """A shell command that prints a line for each thing that does not serve, and then `end`."""
    # A socket may wait until the proxy of before it has ended; that one is asked itself.
    units = [name for name in wanted.units if not name.endswith(".socket")]
    lines = [
        f"for unit in {' '.join(map(shlex.quote, units))}; do",
        '    state=$(systemctl show --property=ActiveState --value "$unit")',
        '    [ "$state" = active ] || echo "$unit is ${state:-unknown}"',
        "done",
    ]
    if wanted.role is Role.APP:
        lines.append(
            f"said=$(timeout 10 {PYTHON} -c {shlex.quote(probe(config))} 2>&1) || "
            'echo "its proxy does not serve: $(echo "$said" | tail -n 1)"'
        )
    return "\n".join((*lines, "echo end\n"))


def probe(config: Config) -> str:
    """A Python program that asks a server something through the proxy of its own machine.

    Where the proxy has users or rules of its own nobody here knows who may come in, and it only
    knocks at the port.
    """
    proxy = config.proxy
    host = _ANYWHERE.get(proxy.host, proxy.host)
    if proxy.users_file is not None or proxy.hba:
        return _KNOCK.format(host=host, port=proxy.port)
    dbname = next(iter(proxy.databases), "postgres")
    return _QUERY.format(secret=f"{ETC}/secrets/app", host=host, port=proxy.port, dbname=dbname)


def read(answer: str) -> tuple[str, ...]:
    """What does not serve, in words."""
    *lines, last = answer.splitlines() or [""]
    return tuple(lines) if last == "end" else (*lines, "it did not say what serves there")
