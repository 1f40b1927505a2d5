"""Certificates and passwords: what is issued can be used, what is wrong is named."""

import socket
import ssl
import stat
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509

from flightmode.errors import CertificateInvalid, FileMissing, FileUnsafe
from flightmode.pki import (
    SECRETS,
    Authority,
    check_certificate,
    client_context,
    make_secrets,
    pgpass,
    private_text,
    read_secret,
    server_context,
    write_private,
)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test")


@pytest.fixture
def node(authority: Authority, tmp_path: Path) -> Path:
    authority.issue_node("ams", ["10.0.0.1", "ams.example.org"]).save(tmp_path, "node")
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_node_serves_at_its_addresses_and_locally(node: Path) -> None:
    certificate = x509.load_pem_x509_certificate((node / "node.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == {
        "10.0.0.1",
        "127.0.0.1",
        "::1",
    }
    assert set(names.get_values_for_type(x509.DNSName)) == {"ams.example.org", "ams", "localhost"}


def test_keys_are_readable_by_their_owner_only(authority: Authority, node: Path) -> None:
    authority.save(node)
    assert mode(node / "node.key") == mode(node / "ca.key") == 0o600
    assert mode(node / "node.crt") == 0o644


def test_an_authority_is_loaded_as_it_was_saved(authority: Authority, tmp_path: Path) -> None:
    authority.save(tmp_path)
    again = Authority.load(tmp_path)
    again.issue_client("operator").save(tmp_path, "client")
    assert check_certificate(tmp_path, "client").name == "operator"


def test_a_good_certificate_says_how_long_it_lasts(node: Path) -> None:
    standing = check_certificate(node, "node")
    assert standing.name == "ams"
    assert 824 < standing.days_left < 826
    assert not standing.ends_soon


def test_a_certificate_warns_before_it_ends(node: Path) -> None:
    in_800_days_s = time.time() + 800 * 86400
    assert check_certificate(node, "node", wall_s=in_800_days_s).ends_soon


def test_an_expired_certificate_is_refused_with_its_date(node: Path) -> None:
    with pytest.raises(CertificateInvalid, match=r"node\.crt expired on 20"):
        check_certificate(node, "node", wall_s=time.time() + 900 * 86400)


def test_a_certificate_of_the_future_asks_for_the_clock(node: Path) -> None:
    with pytest.raises(CertificateInvalid, match="is this machine's clock right") as caught:
        check_certificate(node, "node", wall_s=1.0)
    assert caught.value.hint_text == "timedatectl"


def test_a_certificate_of_another_cluster_is_refused(node: Path) -> None:
    Authority.create("test").save(node)
    with pytest.raises(CertificateInvalid, match=r"not signed by .*ca\.crt"):
        check_certificate(node, "node")


def test_a_certificate_with_another_key_is_refused(authority: Authority, node: Path) -> None:
    write_private(node / "node.key", authority.issue_client("x").key)
    with pytest.raises(CertificateInvalid, match="does not belong to the key"):
        server_context(node, client_required=True)


@pytest.mark.parametrize("name", ["ca.crt", "node.crt", "node.key"])
def test_a_missing_file_is_named(node: Path, name: str) -> None:
    (node / name).unlink()
    with pytest.raises(FileMissing, match=name):
        client_context(node)


@pytest.mark.parametrize("name", ["ca.crt", "node.crt", "node.key"])
def test_a_file_of_rubbish_is_named(node: Path, name: str) -> None:
    (node / name).write_text("rubbish")
    with pytest.raises(CertificateInvalid, match=name):
        client_context(node)


def test_a_key_that_others_can_read_is_refused_with_the_remedy(node: Path) -> None:
    (node / "node.key").chmod(0o640)
    with pytest.raises(FileUnsafe, match="mode 0640") as caught:
        client_context(node)
    assert caught.value.hint_text == f"chmod 600 {node / 'node.key'}"


# ------------------------------------------------------------------------- handshakes


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, object]:
    """Both ends over a socket pair; returns the client's certificate as the server sees it."""
    here, there = socket.socketpair()
    seen: list[dict[str, object] | BaseException] = []

    def serve() -> None:
        try:
            with server.wrap_socket(there, server_side=True) as secure:
                secure.recv(1)
                seen.append(dict(secure.getpeercert() or {}))
        except (ssl.SSLError, OSError) as failure:
            seen.append(failure)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name) as secure:
            secure.send(b"x")
    finally:
        here.close()
        thread.join(10)
    if isinstance(seen[0], BaseException):
        raise seen[0]
    return seen[0]


def test_two_nodes_trust_each_other(authority: Authority, node: Path, tmp_path: Path) -> None:
    other = tmp_path / "fra"
    other.mkdir()
    authority.issue_node("fra", ["10.0.0.2"]).save(other, "node")
    server = server_context(node, client_required=True)
    seen = handshake(server, client_context(other), "10.0.0.1")
    assert (("commonName", "fra"),) in seen["subject"]  # type: ignore[operator]


def test_a_node_at_another_address_is_not_believed(node: Path) -> None:
    server = server_context(node, client_required=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        handshake(server, client_context(node), "10.0.0.9")


def test_a_client_of_another_authority_is_turned_away(node: Path, tmp_path: Path) -> None:
    other = tmp_path / "foreign"
    other.mkdir()
    Authority.create("other").issue_client("eve").save(other, "client")
    client = client_context(other, "client")
    client.load_verify_locations(node / "ca.crt")
    with pytest.raises(ssl.SSLError):
        handshake(server_context(node, client_required=False), client, "10.0.0.1")


def test_a_client_without_a_certificate_gets_in_only_where_it_may(node: Path) -> None:
    client = ssl.create_default_context(cafile=node / "ca.crt")
    assert handshake(server_context(node, client_required=False), client, "10.0.0.1") == {}
    with pytest.raises(ssl.SSLError):
        handshake(server_context(node, client_required=True), client, "10.0.0.1")


def test_an_operators_certificate_cannot_pose_as_a_server(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue_client("operator").save(tmp_path, "client")
    server = server_context(tmp_path, "client", client_required=False)
    client = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    client.check_hostname = False
    with pytest.raises(ssl.SSLError):
        handshake(server, client, "10.0.0.1")


# ------------------------------------------------------------------------- passwords


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    assert make_secrets(directory) == SECRETS
    first = {name: read_secret(directory, name) for name in SECRETS}
    (directory / "app").unlink()
    assert make_secrets(directory) == ("app",)
    assert read_secret(directory, "rewind") == first["rewind"]
    assert read_secret(directory, "app") != first["app"]
    assert len(set(first.values())) == len(SECRETS)
    assert all(len(value) >= 32 for value in first.values())


def test_secrets_and_their_directory_are_private(tmp_path: Path) -> None:
    make_secrets(tmp_path / "secrets")
    assert mode(tmp_path / "secrets") == 0o700
    assert {mode(tmp_path / "secrets" / name) for name in SECRETS} == {0o600}


def test_an_empty_or_open_secret_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "app", "\n")
    with pytest.raises(FileMissing, match="one word"):
        read_secret(tmp_path, "app")
    write_private(tmp_path / "app", "word")
    (tmp_path / "app").chmod(0o644)
    with pytest.raises(FileUnsafe):
        private_text(tmp_path / "app")


def test_a_password_file_escapes_what_libpq_splits_at() -> None:
    text = pgpass({("fd00::1", 5432, "*", "rep"): "a\\b:c"})
    assert text == "fd00\\:\\:1:5432:*:rep:a\\\\b\\:c\n"


def test_a_private_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]
