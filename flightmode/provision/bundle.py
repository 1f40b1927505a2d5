"""What `flightmode init` made, read from the operator's directory; and what it did not make yet."""

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from flightmode.config import Config
from flightmode.errors import BundleMissing, CertificateInvalid
from flightmode.pki import Authority, Standing, check_certificate
from flightmode.provision.wanted import Bundle

APP_SECRET = "app"


def bundle_of(config: Config, toml: Path, name: str) -> Bundle:
    """The files of one host, below /etc/flightmode.  Raises BundleMissing, FileUnsafe.

    An application's host gets a certificate of its own the first time it is asked for.
    """
    home = toml.parent
    if name in config.provision.apps:
        return _app(home, toml, name)
    mine = home / "nodes" / name
    files = {f"tls/{path.name}": path.read_bytes() for path in sorted((mine / "tls").glob("*"))}
    if not {"tls/ca.crt", "tls/node.crt", "tls/node.key"} <= files.keys():
        text = f"{mine}/tls does not hold ca.crt, node.crt and node.key"
        raise BundleMissing(text, hint=f"flightmode init {home} --renew")
    secrets = mine / "secrets"
    files |= {f"secrets/{path.name}": path.read_bytes() for path in sorted(secrets.glob("*"))}
    return Bundle({"flightmode.toml": toml.read_bytes(), **files})


def end_soon(config: Config, toml: Path, names: Iterable[str]) -> list[str]:
    """Which of their certificates end soon, in words.  Call it after `bundle_of`.

    Raises CertificateInvalid, FileUnsafe: one is over, or was never good, or is for another
    address than the node's: no host is to get it.
    """
    told = []
    for name in names:
        kind, stem = ("apps", "client") if name in config.provision.apps else ("nodes", "node")
        standing = check_certificate(toml.parent / kind / name / "tls", stem)
        if name in config.nodes:
            _serves(standing, config.nodes[name].host, toml, name)
        if standing.ends_soon:
            told.append(f"the certificate of {name} ends in {standing.days_left:.0f} days")
    return told


def _serves(standing: Standing, host: str, toml: Path, name: str) -> None:
    """Raises CertificateInvalid: everybody would refuse whoever shows it there."""
    if str(ip_address(host)) not in standing.hosts:
        text = f"nodes/{name}/tls is not for {host}, where flightmode.toml has {name}"
        hint = f"flightmode init {toml.parent} --renew"
        raise CertificateInvalid(text, hint=hint)


def _app(home: Path, toml: Path, name: str) -> Bundle:
    tls = home / "apps" / name / "tls"
    if not (tls / "client.crt").exists():
        if not (home / "ca" / "ca.key").exists():
            text = f"{name} has no certificate in {tls}, and {home}/ca is not here to make one"
            raise BundleMissing(text)
        Authority.load(home / "ca").issue_client(name).save(tls, "client")
    files = {f"tls/{path.name}": path.read_bytes() for path in sorted(tls.glob("*"))}
    secret = home / "secrets" / APP_SECRET
    if not secret.exists():
        raise BundleMissing(f"{secret} is not there")
    files[f"secrets/{APP_SECRET}"] = secret.read_bytes()
    return Bundle({"flightmode.toml": toml.read_bytes(), **files})
