"""A node of three, as tests of text see it."""

from pathlib import Path

from flightmode.postgres.settings import Peer, PostgresConfig

CONFIG = PostgresConfig(
    name="ams",
    host="10.0.0.1",
    port=5432,
    data_dir=Path("/data"),
    bin_dir=Path("/bin"),
    socket_dir=Path("/run/fm"),
    secrets_dir=Path("/secrets"),
    log=Path("/log"),
    tls_dir=Path("/tls"),
    peers=(Peer("fra", "10.0.0.2", 5433), Peer("lhr", "fd00::3", 5432)),
    parameters=(("work_mem", "8MB"),),
    hba=("hostssl app app 10.1.0.0/16 scram-sha-256",),
    user="postgres",
    uid=1,
    gid=1,
    pg_major=15,
)
