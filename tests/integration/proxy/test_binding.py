"""Who binds the password to the certificate (SCRAM-SHA-256-PLUS), whatever that is signed with."""

import subprocess
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from proxy_bed import HOST, Server, give, room
from proxy_peers import Flightmode, Front

from tests.integration.proxy.stage import staged

pytestmark = pytest.mark.integration

RSA = ("-newkey", "rsa:2048")
SIGNED = {
    "sha256": (*RSA, "-sha256"),
    "sha384": (*RSA, "-sha384"),
    "sha512": (*RSA, "-sha512"),
    "ecdsa with sha384": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha384"),
}
NO_HASH = ("-newkey", "ed25519")
SCRAM = {"type": "host", "address": "0.0.0.0/0", "method": "scram-sha-256"}
HBA = """
local all all trust
hostssl all app 127.0.0.1/32 scram-sha-256
host all postgres 127.0.0.1/32 trust
"""


def certificate(cert: Path, how: tuple[str, ...]) -> dict[str, object]:
    key = cert.with_suffix(".key")
    ask = ["openssl", "req", "-x509", *how, "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    place = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*ask, *place], check=True, capture_output=True)
    for path in (cert, key):
        path.chmod(0o600)
        give(path)
    return {"mode": "allow", "cert": str(cert), "key": str(key)}


def by_password(base: Path) -> dict[str, object]:
    users = base / "list.txt"
    users.write_text('"postgres" "any"\n')
    users.chmod(0o600)
    give(users)
    return {"rules": [SCRAM], "users_file": str(users)}


@pytest.mark.parametrize("signed", SIGNED)
def test_a_client_binds_to_a_certificate_of_any_hash(signed: str):
    with staged(
        client_tls=lambda base: certificate(base / "door.crt", SIGNED[signed]), auth=by_password
    ) as stage:
        bound = {"sslmode": "require", "channel_binding": "require", "password": "any"}
        with stage.connect(**bound) as client:
            assert client.execute("SELECT 1").fetchone() == (1,)


def test_a_certificate_without_a_hash_of_its_own_is_not_offered_to_bind_to():
    with staged(
        client_tls=lambda base: certificate(base / "door.crt", NO_HASH), auth=by_password
    ) as stage:
        wanted = {"sslmode": "require", "password": "any"}
        with stage.connect(channel_binding="prefer", **wanted) as client:
            assert client.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="channel binding"):
            stage.connect(channel_binding="require", **wanted)


@pytest.mark.parametrize("signed", SIGNED)
def test_we_bind_to_a_servers_certificate_of_any_hash(signed: str):
    with room("fm-binding-") as base, ExitStack() as stack:
        server = Server(base, "ams", settings="ssl = on\n")
        stack.callback(server.kill)
        server.create()
        certificate(server.data / "server.crt", SIGNED[signed])
        (server.data / "pg_hba.conf").write_text(HBA)
        server.start()
        server.sql("CREATE ROLE app LOGIN PASSWORD 'app'")
        front = Front(base, {"ams": server.port}, "ams", secrets={"app": "app"})
        proxy = Flightmode(front, server_tls={"mode": "require"})
        stack.callback(proxy.stop)
        proxy.start()
        address = f"host={HOST} port={proxy.port} user=app dbname=postgres connect_timeout=10"
        with psycopg.connect(address) as client:
            row = client.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            assert row.fetchone() == (True,)
