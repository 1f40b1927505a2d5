"""The cluster's certificate authority, and the certificates it issues.

Keys are EC P-256: small, fast in a handshake, and understood by every libpq and etcd
in use.  Extensions follow RFC 5280, strictly enough for Python's VERIFY_X509_STRICT.
"""

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flightmode.errors import CertificateInvalid
from flightmode.pki.files import (
    check_present,
    check_private,
    make_directory,
    write_private,
    write_public,
)

CA_DAYS: Final = 3653
LEAF_DAYS: Final = 825
"""More than two years are refused by some verifiers; `flightmode init --renew` issues new ones."""

_BACKDATED: Final = datetime.timedelta(days=1)
"""So that a node whose clock is late can use its certificate at once."""

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate and its key, in PEM, with the authority's certificate."""

    certificate: bytes
    key: bytes
    authority: bytes

    def save(self, directory: Path, stem: str) -> None:
        """Write `ca.crt`, `<stem>.crt` and `<stem>.key` (0600); make the directory if need be."""
        make_directory(directory)
        write_public(directory / "ca.crt", self.authority)
        write_private(directory / f"{stem}.key", self.key)
        write_public(directory / f"{stem}.crt", self.certificate)


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, cluster: str) -> "Authority":
        """A new authority, valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"flightmode {cluster}")
        certificate = (
            _begin(subject, subject, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(_key_id(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, directory: Path) -> "Authority":
        """From `ca.crt` and `ca.key`.  Raises FileMissing, FileUnsafe, CertificateInvalid."""
        check_present(directory / "ca.crt")
        check_private(directory / "ca.key")
        try:
            certificate = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
            key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        except ValueError as wrong:
            raise CertificateInvalid(f"the authority in {directory}: {wrong}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateInvalid(f"{directory / 'ca.key'} is not an EC key")
        return cls(certificate, key)

    def save(self, directory: Path) -> None:
        """Write `ca.crt` and `ca.key` (0600); make the directory if need be."""
        make_directory(directory)
        write_private(directory / "ca.key", _key_pem(self.key))
        write_public(directory / "ca.crt", self.pem)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue_node(self, node: str, hosts: Iterable[str], days: int = LEAF_DAYS) -> Leaf:
        """For a node: it serves at `hosts` (and locally), and is a client of the others."""
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(node, dict.fromkeys((*hosts, node, *_LOCAL)), usages, days)

    def issue_client(self, name: str, days: int = LEAF_DAYS) -> Leaf:
        """For a person: a client only."""
        return self._issue(name, (), [ExtendedKeyUsageOID.CLIENT_AUTH], days)

    def _issue(
        self, name: str, hosts: Iterable[str], usages: list[x509.ObjectIdentifier], days: int
    ) -> Leaf:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _begin(_name(name), self.certificate.subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_key_id(key.public_key()), critical=False)
            .add_extension(_issuer_id(self.key.public_key()), critical=False)
        )
        names = [_general_name(host) for host in hosts]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return Leaf(pem, _key_pem(key), self.pem)


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_id(key: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def _issuer_id(key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
