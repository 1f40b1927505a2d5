"""The operator's directory: what a host gets of it, and what is not good enough to be brought."""

from pathlib import Path

import pytest

from flightmode.config import Config, parse
from flightmode.errors import BundleMissing, CertificateInvalid
from flightmode.pki import Authority
from flightmode.provision.bundle import bundle_of, end_soon
from tests.unit.commands import flightmode

NAMES = ("ams", "fra", "wit", "web")


@pytest.fixture
def toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    home = tmp_path / "cluster"
    assert flightmode(capsys, "init", home).status == 0
    path = home / "flightmode.toml"
    path.write_text(f'{path.read_text()}\n[provision.apps.web]\nhost = "10.0.0.9"\n')
    return path


def config_of(toml: Path) -> Config:
    return parse(toml.read_text(), name="it")


def test_an_application_s_host_gets_a_certificate_the_first_time_and_no_node_s(toml: Path) -> None:
    first = bundle_of(config_of(toml), toml, "web").files
    assert set(first) == {
        "flightmode.toml",
        "tls/ca.crt",
        "tls/client.crt",
        "tls/client.key",
        "secrets/app",
    }
    assert bundle_of(config_of(toml), toml, "web").files == first


def test_without_the_authority_nobody_gets_a_first_certificate(toml: Path) -> None:
    (toml.parent / "ca" / "ca.key").unlink()
    with pytest.raises(BundleMissing, match="web has no certificate"):
        bundle_of(config_of(toml), toml, "web")


def test_certificates_that_end_soon_are_named_before_anything_is_done(toml: Path) -> None:
    config, home = config_of(toml), toml.parent
    for name in NAMES:
        bundle_of(config, toml, name)
    assert end_soon(config, toml, NAMES) == []
    authority = Authority.load(home / "ca")
    authority.issue_node("fra", ["10.0.0.2"], days=10).save(home / "nodes/fra/tls", "node")
    authority.issue_client("web", days=3).save(home / "apps/web/tls", "client")
    assert end_soon(config, toml, NAMES) == [
        "the certificate of fra ends in 10 days",
        "the certificate of web ends in 3 days",
    ]
    assert end_soon(config, toml, ["ams"]) == []


def test_what_the_hint_says_makes_all_of_them_new(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, home = config_of(toml), toml.parent
    authority = Authority.load(home / "ca")
    authority.issue_node("ams", ["10.0.0.1"], days=-1).save(home / "nodes/ams/tls", "node")
    authority.issue_client("web", days=-1).save(home / "apps/web/tls", "client")
    assert CertificateInvalid.hint == "flightmode init --renew"
    assert flightmode(capsys, "init", home, "--renew").status == 0
    assert end_soon(config, toml, NAMES) == []


@pytest.mark.parametrize("host", ["10.0.0.5", "fd00:0::5"])
def test_a_certificate_for_another_address_is_brought_to_nobody_until_what_the_hint_says(
    toml: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    """All others would refuse who shows it; an IPv6 address may be written in several ways."""
    toml.write_text(toml.read_text().replace('"10.0.0.2"', f'"{host}"'))
    assert end_soon(config_of(toml), toml, ["ams", "wit"]) == []
    with pytest.raises(CertificateInvalid, match=f"nodes/fra/tls is not for {host}, ") as refused:
        end_soon(config_of(toml), toml, ["ams", "fra"])
    assert flightmode(capsys, *refused.value.hint_text.split()[1:]).status == 0
    assert end_soon(config_of(toml), toml, NAMES[:3]) == []


def test_a_certificate_that_is_over_is_brought_to_nobody(toml: Path) -> None:
    config, home = config_of(toml), toml.parent
    authority = Authority.load(home / "ca")
    authority.issue_node("ams", ["10.0.0.1"], days=-1).save(home / "nodes/ams/tls", "node")
    with pytest.raises(CertificateInvalid, match=r"node.crt expired on"):
        end_soon(config, toml, ["ams"])
