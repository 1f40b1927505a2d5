"""TLS settings for our servers and clients: 1.2 or newer, our authority and no other."""

import ssl
from pathlib import Path

from flightmode.errors import CertificateInvalid
from flightmode.pki.standing import check_certificate


def server_context(directory: Path, stem: str = "node", *, client_required: bool) -> ssl.SSLContext:
    """For a server.  Without `client_required` a client may show a certificate, and then it must
    be ours.  Raises FileMissing, FileUnsafe, CertificateInvalid."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, directory, stem)
    context.verify_mode = ssl.CERT_REQUIRED if client_required else ssl.CERT_OPTIONAL
    return context


def client_context(directory: Path, stem: str = "node") -> ssl.SSLContext:
    """For a client that proves who it is, and checks the server's name.

    Raises FileMissing, FileUnsafe, CertificateInvalid.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, directory, stem)


def _context(protocol: int, directory: Path, stem: str) -> ssl.SSLContext:
    check_certificate(directory, stem)
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=directory / "ca.crt")
    try:
        context.load_cert_chain(directory / f"{stem}.crt", directory / f"{stem}.key")
    except ssl.SSLError as wrong:
        raise CertificateInvalid(f"{directory / stem}.crt can't be used: {wrong.reason}") from None
    return context
