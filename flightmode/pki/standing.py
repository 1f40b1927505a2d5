"""Whether a certificate can be used: it fits its key, our authority signed it, it is in time."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID

from flightmode.errors import CertificateInvalid
from flightmode.pki.files import check_present, check_private

SOON_DAYS: Final = 30
"""A certificate that ends within so many days is worth a warning."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A certificate that can be used, and for how long."""

    name: str
    hosts: frozenset[str]
    """The addresses and names that it may serve at, as clients write them; a client's: none."""
    expires_wall_s: float
    days_left: float

    @property
    def ends_soon(self) -> bool:
        return self.days_left < SOON_DAYS


def check_certificate(directory: Path, stem: str, *, wall_s: float | None = None) -> Standing:
    """Look at `ca.crt`, `<stem>.crt`, `<stem>.key`.

    Raises FileMissing, FileUnsafe, CertificateInvalid, each naming the file.
    """
    now_s = time.time() if wall_s is None else wall_s
    authority = _certificate(directory / "ca.crt")
    path = directory / f"{stem}.crt"
    certificate = _certificate(path)
    key = _key(directory / f"{stem}.key")
    if certificate.public_key() != key.public_key():
        raise CertificateInvalid(f"{path} does not belong to the key beside it")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise CertificateInvalid(
            f"{path} is not signed by {directory / 'ca.crt'}: files of two clusters are mixed"
        ) from None
    for each, where in ((authority, directory / "ca.crt"), (certificate, path)):
        _in_time(each, where, now_s)
    expires_s = certificate.not_valid_after_utc.timestamp()
    left_days = (expires_s - now_s) / 86400
    return Standing(_common_name(certificate), _hosts(certificate), expires_s, left_days)


def _in_time(certificate: x509.Certificate, path: Path, now_s: float) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now_s > ends.timestamp():
        raise CertificateInvalid(f"{path} expired on {ends:%Y-%m-%d %H:%M} UTC")
    if now_s < begins.timestamp():
        text = f"{path} is valid from {begins:%Y-%m-%d %H:%M} UTC: is this machine's clock right?"
        raise CertificateInvalid(text, hint="timedatectl")


def _certificate(path: Path) -> x509.Certificate:
    check_present(path)
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise CertificateInvalid(f"{path} is not a certificate in PEM") from None


def _key(path: Path) -> PrivateKeyTypes:
    check_private(path)
    try:
        return serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise CertificateInvalid(f"{path} is not a private key in PEM without a password") from None


def _hosts(certificate: x509.Certificate) -> frozenset[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = names.get_values_for_type(x509.IPAddress)
    return frozenset([*names.get_values_for_type(x509.DNSName), *map(str, addresses)])


def _common_name(certificate: x509.Certificate) -> str:
    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)
